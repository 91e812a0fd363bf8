"""The job record in a real Valkey: admission, claims, cancellation, listing, deletion."""

import time
from dataclasses import replace

import pytest
import redis

from app.errors import JobNotFound, NoWorker, QueueFull
from app.jobs import keys
from app.jobs.events import Delta, End, read_events
from app.jobs.job import JobRequest, Kind, Priority, Status, Usage
from app.jobs.order import doorbell
from app.jobs.output_writer import FENCED, WRITTEN, OutputWrite, OutputWriter
from app.jobs.queue_positions import QueuePosition, QueuePositions
from app.jobs.reaper import Reaper
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore, new_job_id, new_nonce
from tests.app.jobs.scene import MODEL, Scene
from tests.lost_worker import lose_worker
from tests.principals import ME, key_named
from tests.waiting import scaled


def request(prompt: str = "hello", priority: Priority = Priority.NORMAL) -> JobRequest:
    return JobRequest(kind=Kind.GENERATE, prompt=prompt, params={"temperature": 0.5}, priority=priority)


def raw(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, decode_responses=True)


def test_an_admitted_job_reads_back_as_queued_with_its_position(store: JobStore, redis_client: RedisClient) -> None:
    first, second = store.admit(request(), ME), store.admit(request(), ME)
    job = store.read(second.id)
    assert (job.status, job.kind, job.owner, job.priority) == (Status.QUEUED, Kind.GENERATE, "me", Priority.NORMAL)
    assert job == second
    assert QueuePositions(redis_client).read([first, second]) == [QueuePosition(0, 0.0), QueuePosition(1, 1.0)]


def test_a_job_comes_with_a_doorbell_that_holds_nothing_of_it(store: JobStore, redis_url: str) -> None:
    jobs = [store.admit(request("a secret prompt"), ME) for _ in range(2)]
    assert raw(redis_url).lrange(keys.doorbells("m"), 0, -1) == [doorbell("m")] * 2
    assert not [job.id for job in jobs if job.id in doorbell("m")]


def test_a_job_of_higher_priority_comes_first_in_the_order_and_is_claimed_first(
    store: JobStore, redis_client: RedisClient
) -> None:
    low, high = store.admit(request(priority=Priority.LOW), ME), store.admit(request(priority=Priority.HIGH), ME)
    normal = store.admit(request(), ME)
    assert [place and place.jobs_ahead for place in QueuePositions(redis_client).read([low, normal, high])] == [2, 1, 0]
    claims = [store.claim("worker-1") for _ in range(4)]
    assert [claim and claim.job_id for claim in claims] == [high.id, normal.id, low.id, None]


def test_a_full_queue_refuses_and_leaves_nothing_behind(store: JobStore, redis_url: str) -> None:
    for _ in range(3):
        store.admit(request(), ME)
    before = raw(redis_url).dbsize()
    with pytest.raises(QueueFull, match="3 jobs wait") as refusal:
        store.admit(request(), ME)
    assert refusal.value.waiting == 3
    assert raw(redis_url).dbsize() == before


def test_without_a_living_worker_a_job_is_refused(store: JobStore, redis_client: RedisClient) -> None:
    store.admit(request(), ME)
    redis_client.delete(keys.alive("m"))
    with pytest.raises(NoWorker) as refusal:
        store.admit(request(), ME)
    assert refusal.value.waiting == 1


def test_admitting_the_same_id_again_makes_no_second_job(store: JobStore, redis_url: str) -> None:
    job_id = new_job_id()
    first, again = store.admit(request(), ME, job_id), store.admit(request(), ME, job_id)
    assert first == again
    assert raw(redis_url).llen(keys.doorbells("m")) == 1


def test_a_claim_carries_the_request_and_takes_the_job_out_of_the_order(
    store: JobStore, redis_client: RedisClient
) -> None:
    job = store.admit(request(), ME)
    claim = store.claim("worker-1")
    assert claim is not None
    assert (claim.request, claim.attempt, claim.followed) == (request(), 1, False)
    assert claim.queue_seconds >= 0
    job = store.read(job.id)
    assert (job.status, job.attempt) == (Status.PROCESSING, 1)
    assert QueuePositions(redis_client).read([job]) == [None]
    assert job.started_at is not None and job.started_at >= job.created_at


def test_a_leased_job_cannot_be_claimed_until_its_lease_runs_out(store: JobStore, redis_url: str) -> None:
    job = store.admit(request(), ME)
    first = store.claim("worker-1")
    assert store.claim("worker-2") is None
    lose_worker(redis_url, job.id)
    second = store.claim("worker-2")
    assert first is not None and second is not None
    assert second.token > first.token
    assert (second.attempt, second.losses) == (2, 1)


def test_a_claim_whose_answer_was_lost_gets_the_same_job_again(store: JobStore) -> None:
    first, second = store.admit(request(), ME), store.admit(request(), ME)
    nonce = new_nonce()
    claims = [store.claim("worker-1", nonce) for _ in range(3)]
    assert claims[0] is not None and claims[0].job_id == first.id
    assert claims == [claims[0]] * 3
    later = store.claim("worker-1", new_nonce())
    assert later is not None and later.job_id == second.id


def test_a_repeated_claim_does_not_get_a_job_that_it_has_lost(store: JobStore, redis_url: str) -> None:
    job, nonce = store.admit(request(), ME), new_nonce()
    store.claim("worker-1", nonce)
    lose_worker(redis_url, job.id)
    taken = store.claim("worker-2")
    assert taken is not None and taken.job_id == job.id
    assert store.claim("worker-1", nonce) is None


def test_a_claim_leaves_jobs_that_waited_too_long_to_the_reaper(store: JobStore, redis_client: RedisClient) -> None:
    impatient = [store.admit(replace(request(), expires_in_seconds=0.01), ME) for _ in range(2)]
    time.sleep(0.02)
    patient = store.admit(request(), ME)
    claim = store.claim("worker-1")
    assert claim is not None and claim.job_id == patient.id
    assert store.claim("worker-1") is None
    Reaper(redis_client, model="m", ttl_seconds=60, max_attempts=3).reap()
    assert [store.read(job.id).status for job in impatient] == [Status.EXPIRED] * 2


def test_a_place_in_the_order_without_a_record_is_passed_over(store: JobStore, redis_client: RedisClient) -> None:
    gone, there = store.admit(request(), ME), store.admit(request(), ME)
    redis_client.delete(keys.job(gone.id))
    claim = store.claim("worker-1")
    assert claim is not None and claim.job_id == there.id
    assert redis_client.zcard(keys.waiting("m")) == 0


def test_a_queued_job_is_canceled_at_once_and_cannot_be_claimed(store: JobStore, redis_client: RedisClient) -> None:
    job = store.admit(request(), ME)
    assert store.cancel(job.id) is Status.CANCELED
    assert store.read(job.id).completed_at is not None
    assert store.claim("worker-1") is None
    ((end,),) = read_events(redis_client, [(job.id, "0-0")])
    assert end.event == End(Status.CANCELED, usage=Usage())


def test_canceling_a_running_job_leaves_the_end_to_its_worker(store: JobStore) -> None:
    job = store.admit(request(), ME)
    store.claim("worker-1")
    assert store.cancel(job.id) is Status.PROCESSING


def test_a_job_whose_worker_is_dead_is_canceled_at_once_and_its_worker_comes_back_too_late(
    store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    job = store.admit(request(), ME)
    claim = store.claim("worker-1")
    raw(redis_url).hset(keys.job(job.id), "lease_until", str(time.time() - 1))
    assert store.cancel(job.id) is Status.CANCELED
    assert raw(redis_url).zcard(keys.running("m")) == 0
    assert claim is not None
    late = OutputWrite(job_id=job.id, token=claim.token, delta=Delta("late", (1,)))
    assert OutputWriter(redis_client, model="m", ttl_seconds=60).write([late]) == [FENCED]


def test_unknown_jobs_are_not_found(store: JobStore) -> None:
    for call in (store.read, store.cancel):
        with pytest.raises(JobNotFound):
            call(new_job_id())


def test_only_a_final_job_is_forgotten_and_nothing_of_it_remains(store: JobStore, redis_url: str) -> None:
    job = store.admit(request(), ME)
    assert store.delete(job) is False
    store.cancel(job.id)
    assert store.delete(job) is True
    assert raw(redis_url).keys(f"*{job.id}*") == []
    assert store.list_jobs("me") == []


def test_a_job_keeps_no_expiry_until_it_is_final(store: JobStore, redis_url: str) -> None:
    job = store.admit(request(), ME)
    assert raw(redis_url).ttl(keys.job(job.id)) == -1
    store.cancel(job.id)
    assert 0 < raw(redis_url).ttl(keys.job(job.id)) <= 60
    assert 0 < raw(redis_url).ttl(keys.events(job.id)) <= 60


def test_jobs_are_listed_newest_first_per_owner_by_status_and_in_pages(store: JobStore) -> None:
    jobs = [store.admit(request(), ME) for _ in range(3)]
    store.cancel(jobs[1].id)
    store.admit(request(), key_named("you"))
    newest_first = [job.id for job in reversed(jobs)]
    assert [job.id for job in store.list_jobs("me")] == newest_first
    page = store.list_jobs("me", limit=2)
    rest = store.list_jobs("me", before=page[-1].created_at)
    assert [job.id for job in (*page, *rest)] == newest_first
    assert [job.id for job in store.list_jobs("me", status=Status.CANCELED)] == [jobs[1].id]


def test_a_listing_drops_jobs_whose_record_has_expired(store: JobStore, redis_url: str) -> None:
    jobs = [store.admit(request(), ME) for _ in range(2)]
    raw(redis_url).delete(keys.job(jobs[0].id))
    assert [job.id for job in store.list_jobs("me")] == [jobs[1].id]
    assert raw(redis_url).zcard("llm:jobs:me") == 1


def test_a_job_that_was_handed_back_is_lost_to_its_worker(scene: Scene) -> None:
    claim = scene.running()
    assert scene.store.hand_back(claim) is True
    assert scene.store.hand_back(claim) is False
    assert scene.renew(claim) == ["lost"]
    assert scene.finish(claim) == 0
    assert scene.store.read(claim.job_id).status is Status.QUEUED


def test_a_job_that_is_to_be_canceled_is_not_handed_back_but_canceled(scene: Scene) -> None:
    claim = scene.running()
    scene.publish(claim, "so far")
    scene.store.cancel(claim.job_id)
    scene.store.follow(claim.job_id, "api")
    with scene.raw.pubsub(ignore_subscribe_messages=True) as notifications:
        notifications.subscribe("api")
        notifications.get_message(timeout=1)
        assert scene.store.hand_back(claim) is True
        assert (notifications.get_message(timeout=scaled(2)) or {})["data"] == claim.job_id
    job = scene.store.read(claim.job_id)
    assert job.status is Status.CANCELED
    assert job.output is not None and job.output.text == "so far"
    assert scene.queue() == scene.raw.zrange(keys.running(MODEL), 0, -1) == []


def test_the_processes_that_wait_for_a_job_are_notified_once_and_no_other_is(scene: Scene) -> None:
    admitted = scene.store.admit(scene.request(), ME, listener="one")
    claim, ignored = scene.claimed(admitted.id), scene.running()
    for listener in ("two", "two", "one"):
        scene.store.follow(claim.job_id, listener, with_events=False)
    with scene.raw.pubsub(ignore_subscribe_messages=True) as notifications:
        notifications.subscribe("one", "two", "three")
        assert [notifications.get_message(timeout=1) for _ in range(3)] == [None] * 3  # the subscriptions
        assert scene.finish(ignored) == scene.finish(claim) == WRITTEN
        received = [notifications.get_message(timeout=scaled(2)) or {} for _ in range(2)]
        assert notifications.get_message(timeout=0.2) is None
    assert sorted(message["channel"] for message in received) == ["one", "two"]
    assert all(claim.job_id in message["data"] for message in received)


def test_jobs_handed_back_keep_their_places_and_the_time_they_ran(scene: Scene) -> None:
    claims = [scene.running() for _ in range(3)]
    waiting = scene.admit()
    scene.raw.hset(keys.job(claims[0].job_id), "claimed_at", f"{time.time() - 10:.6f}")
    assert all(scene.store.hand_back(claims[number]) for number in (1, 0, 2))
    assert scene.queue() == [*(claim.job_id for claim in claims), waiting.id]
    again = scene.next_claim()
    assert (again.job_id, again.attempt, again.losses) == (claims[0].job_id, 2, 0)
    assert again.ran_seconds == pytest.approx(10, abs=1)
    scene.raw.hset(keys.job(again.job_id), "claimed_at", f"{time.time() - 5:.6f}")
    scene.store.hand_back(again)
    assert scene.next_claim().ran_seconds == pytest.approx(15, abs=1)


@pytest.mark.parametrize(
    ("length", "response", "stored", "kept"),
    [(20_000, None, True, False), (20_000, {}, True, True), (20_000, {}, False, False), (10_000, None, True, True)],
)
def test_a_long_request_of_a_job_that_has_ended_is_kept_for_a_stored_response_alone(
    store: JobStore, length: int, response: dict[str, object] | None, stored: bool, kept: bool
) -> None:
    prompt = "p" * length
    job = store.admit(replace(request(prompt), response=response, stored=stored), ME)
    assert store.read_request(job.id).prompt == prompt
    store.cancel(job.id)
    assert store.read(job.id).status is Status.CANCELED
    if kept:
        assert store.read_request(job.id).prompt == prompt
    else:
        with pytest.raises(JobNotFound):
            store.read_request(job.id)
