"""Jobs that must not start before a time: they wait outside of the order, and the reaper moves them in."""

import time

import pytest
import redis

from app.errors import Conflict, NoWorker, QueueFull
from app.jobs import keys
from app.jobs.job import Job, JobRequest, Kind, Priority, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.app.jobs.scene import MODEL, Scene
from tests.principals import ME

FAR = 1000.0  # seconds, beyond every test


@pytest.fixture
def scene(redis_url: str, redis_client: RedisClient) -> Scene:
    return Scene(redis_client, redis.Redis.from_url(redis_url, decode_responses=True), redis_url)


def scheduled(scene: Scene) -> list[str]:
    return [str(job_id) for job_id in scene.raw.zrange(keys.scheduled(MODEL), 0, -1)]


def let_come(scene: Scene, job: Job, *, seconds_ago: float = 1.0) -> None:
    """Let the time of a job come."""
    scene.raw.zadd(keys.scheduled(MODEL), {job.id: time.time() - seconds_ago}, xx=True)


def test_a_job_for_later_waits_without_a_doorbell_or_a_position(scene: Scene) -> None:
    not_before = time.time() + FAR
    job = scene.admit(not_before=not_before)
    assert job.not_before == not_before
    read = scene.store.read(job.id)
    assert (read.status, read.not_before) == (Status.QUEUED, pytest.approx(not_before, abs=1e-5))
    assert scene.position(read) is None
    assert (scheduled(scene), scene.queue(), scene.doorbells()) == ([job.id], [], 0)
    assert scene.store.claim("worker-1") is None
    scene.turn()
    assert (scheduled(scene), scene.doorbells()) == ([job.id], 0)


def test_when_its_time_comes_it_enters_the_order_with_a_doorbell(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() + FAR)
    let_come(scene, job)
    scene.turn()
    assert (scheduled(scene), scene.queue()) == ([], [job.id])
    assert scene.position(scene.store.read(job.id)) == 1
    assert scene.next_claim().job_id == job.id


def test_its_time_of_waiting_begins_then_for_its_place_and_its_metrics(scene: Scene) -> None:
    first = scene.admit(not_before=time.time() + 0.3)
    second = scene.admit()
    time.sleep(0.35)
    third = scene.admit()
    urgent = scene.admit(priority=Priority.HIGH, not_before=time.time() + FAR)
    let_come(scene, urgent)
    scene.turn()
    assert scene.queue() == [urgent.id, second.id, first.id, third.id], "its class still counts before its time"
    scene.next_claim()
    scene.next_claim()
    claim = scene.next_claim()
    assert claim.job_id == first.id and claim.queue_seconds < claim.started_at - claim.created_at


def test_a_time_in_the_past_is_now(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() - 5)
    assert (scheduled(scene), scene.queue(), scene.doorbells()) == ([], [job.id], 1)


def test_a_job_for_later_is_accepted_though_no_worker_is_there_yet(scene: Scene) -> None:
    scene.raw.delete(keys.alive(MODEL))
    with pytest.raises(NoWorker):
        scene.admit(not_before=time.time() - 5)
    job = scene.admit(not_before=time.time() + FAR)
    assert scheduled(scene) == [job.id]


def test_jobs_for_later_count_as_waiting(scene: Scene, redis_client: RedisClient) -> None:
    store = JobStore(redis_client, model=MODEL, ttl_seconds=60, max_queued=2)
    request = JobRequest(kind=Kind.GENERATE, prompt="p")
    later = JobRequest(kind=Kind.GENERATE, prompt="p", not_before=time.time() + FAR)
    store.admit(later, ME)
    store.admit(request, ME)
    for refused in (later, request):
        with pytest.raises(QueueFull, match="2 jobs wait"):
            store.admit(refused, ME)


def test_a_canceled_job_never_enters_the_order(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() + FAR)
    assert scene.store.cancel(job.id) is Status.CANCELED
    assert scheduled(scene) == []
    scene.turn()
    assert (scene.queue(), scene.doorbells()) == ([], 0)
    assert scene.store.delete(scene.store.read(job.id))


def test_an_entry_whose_job_is_gone_is_dropped(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() + FAR)
    scene.raw.delete(keys.job(job.id))
    let_come(scene, job)
    scene.turn()
    assert (scheduled(scene), scene.queue(), scene.doorbells()) == ([], [], 0)


def test_expires_in_counts_from_the_time_to_start(scene: Scene) -> None:
    not_before = time.time() + FAR
    job = scene.admit(not_before=not_before, expires_in_seconds=10.0)
    assert scene.raw.zscore(keys.expiring(MODEL), job.id) == pytest.approx(not_before + 10, abs=1e-3)
    scene.turn()
    assert scene.store.read(job.id).status is Status.QUEUED
    let_come(scene, job, seconds_ago=20)
    scene.raw.zadd(keys.expiring(MODEL), {job.id: time.time() - 10})
    scene.turn()
    assert scene.store.read(job.id).status is Status.EXPIRED
    assert (scheduled(scene), scene.queue(), scene.doorbells()) == ([], [], 0)


def test_an_expired_job_leaves_nothing_behind_though_it_has_not_entered_the_order(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() + FAR, expires_in_seconds=10.0)
    scene.raw.zadd(keys.expiring(MODEL), {job.id: time.time() - 10})
    scene.turn()
    assert (scene.store.read(job.id).status, scheduled(scene)) == (Status.EXPIRED, [])


def test_a_lost_worker_does_not_send_it_back_to_wait_for_its_time(scene: Scene) -> None:
    job = scene.admit(not_before=time.time() + FAR)
    let_come(scene, job)
    scene.turn()
    scene.lose(scene.next_claim())
    assert (scheduled(scene), scene.queue()) == ([], [job.id])


def test_the_same_delay_sent_again_is_the_same_request_and_another_time_is_not(scene: Scene) -> None:
    def admit(not_before: float, delay: float | None = None) -> str:
        request = JobRequest(kind=Kind.GENERATE, prompt="p", not_before=not_before, delay_seconds=delay)
        return scene.store.admit(request, ME, idempotency_key="key" if delay else "other").id

    now = time.time()
    assert admit(now + 60, delay=60.0) == admit(now + 61, delay=60.0)
    with pytest.raises(Conflict):
        admit(now + 62, delay=62.0)
    assert admit(now + 60) == admit(now + 60)
    with pytest.raises(Conflict):
        admit(now + 61)
