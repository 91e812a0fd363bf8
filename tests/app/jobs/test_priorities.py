"""The priority of a waiting job is changed: its place keeps its time and takes the new class."""

import time

import pytest

from app.errors import Conflict, JobNotFound
from app.jobs import keys
from app.jobs.job import Job, Priority, Status
from app.jobs.store import new_job_id
from tests.app.jobs.scene import MODEL, Scene
from tests.principals import key_named

CLASS = 3e15  # of the places of waiting jobs
FAR = 1000.0  # seconds, beyond every test


def change(scene: Scene, job: Job, priority: Priority) -> None:
    scene.store.change_priority(job.id, priority)


def place(scene: Scene, job: Job) -> float:
    return float(str(scene.raw.hget(keys.job(job.id), "place")))


def rise(scene: Scene, job: Job) -> float:
    """When the job rises, as a place in its class."""
    return float(scene.raw.zscore(keys.waiting(MODEL), job.id))  # type: ignore[arg-type]


def test_a_waiting_job_goes_where_its_age_puts_it_in_the_new_class(scene: Scene) -> None:
    oldest = scene.admit(priority=Priority.LOW)
    older, younger = scene.admit(), scene.admit()
    low = scene.admit(priority=Priority.LOW)
    change(scene, oldest, Priority.NORMAL)
    change(scene, older, Priority.LOW)
    assert scene.queue() == [oldest.id, younger.id, older.id, low.id]
    change(scene, low, Priority.HIGH)
    assert scene.queue() == [low.id, oldest.id, younger.id, older.id]
    assert [scene.store.read(job.id).priority for job in (oldest, older, low)] == ["normal", "low", "high"]
    assert [scene.position(job) for job in (low, oldest, younger, older)] == [1, 2, 3, 4]
    assert scene.doorbells() == 4
    assert [scene.next_claim().job_id for _ in range(4)] == [low.id, oldest.id, younger.id, older.id]


def test_the_same_priority_once_more_changes_nothing(scene: Scene) -> None:
    job = scene.admit(priority=Priority.LOW)
    change(scene, job, Priority.HIGH)
    before = (place(scene, job), rise(scene, job), scene.raw.zrange(keys.tenants(MODEL), 0, -1, withscores=True))
    change(scene, job, Priority.HIGH)
    after = (place(scene, job), rise(scene, job), scene.raw.zrange(keys.tenants(MODEL), 0, -1, withscores=True))
    assert after == before


def test_a_risen_job_stays_risen_when_it_gets_the_priority_that_it_has(scene: Scene) -> None:
    job = scene.admit(priority=Priority.LOW)
    scene.raw.zadd(keys.waiting(MODEL), {job.id: 2 * CLASS}, xx=True)
    scene.turn()
    risen = place(scene, job)
    assert risen < 2 * CLASS
    change(scene, job, Priority.LOW)
    assert place(scene, job) == risen
    change(scene, job, Priority.NORMAL)
    assert place(scene, job) == risen, "the same place, which it has by itself now"
    change(scene, job, Priority.LOW)
    assert place(scene, job) == risen + CLASS


def test_a_changed_job_rises_when_one_of_its_age_and_new_priority_does(scene: Scene) -> None:
    for before in Priority:
        for after in Priority:
            changed, other = scene.admit(priority=before), scene.admit(priority=after)
            change(scene, changed, after)
            assert rise(scene, changed) - place(scene, changed) == rise(scene, other) - place(scene, other)


def test_tenants_are_seated_by_the_new_classes_of_their_first_jobs(scene: Scene) -> None:
    mine = scene.store.admit(scene.request(priority=Priority.LOW), key_named("me"))
    yours = scene.store.admit(scene.request(), key_named("you"))
    assert scene.raw.zrange(keys.tenants(MODEL), 0, -1) == ["you", "me"]
    change(scene, mine, Priority.HIGH)
    assert scene.raw.zrange(keys.tenants(MODEL), 0, -1) == ["me", "you"]
    change(scene, mine, Priority.LOW)
    change(scene, yours, Priority.HIGH)
    assert [scene.next_claim().job_id for _ in range(2)] == [yours.id, mine.id]


def test_a_job_for_later_takes_the_new_class_when_its_time_comes(scene: Scene) -> None:
    later = scene.admit(priority=Priority.LOW, not_before=time.time() + FAR)
    change(scene, later, Priority.HIGH)
    assert scene.queue() == [] and scene.raw.zrange(keys.scheduled(MODEL), 0, -1) == [later.id]
    assert (scene.doorbells(), scene.store.claim("worker-1")) == (0, None)
    now = scene.admit()
    scene.raw.zadd(keys.scheduled(MODEL), {later.id: 1}, xx=True)
    scene.turn()
    assert scene.queue() == [later.id, now.id]


def test_a_job_that_was_put_last_in_its_class_is_among_the_last_of_the_new_one(scene: Scene) -> None:
    suspect = scene.running()
    scene.lose(suspect)
    other = scene.admit(priority=Priority.LOW)
    scene.lose(scene.next_claim())
    scene.store.change_priority(suspect.job_id, Priority.LOW)
    assert scene.queue() == [other.id, suspect.job_id]


def test_what_runs_or_has_ended_keeps_its_priority(scene: Scene) -> None:
    claim = scene.running()
    with pytest.raises(Conflict, match="the job is processing; only a job that is queued"):
        scene.store.change_priority(claim.job_id, Priority.HIGH)
    scene.finish(claim)
    with pytest.raises(Conflict, match="the job is succeeded"):
        scene.store.change_priority(claim.job_id, Priority.NORMAL)
    job = scene.store.read(claim.job_id)
    assert (job.status, job.priority) == (Status.SUCCEEDED, Priority.NORMAL)
    assert (scene.queue(), scene.raw.zcard(keys.tenants(MODEL))) == ([], 0)


def test_a_job_that_waits_for_another_worker_can_be_changed(scene: Scene) -> None:
    claim = scene.running()
    first = scene.admit(priority=Priority.HIGH)
    assert scene.store.hand_back(claim)
    scene.store.change_priority(claim.job_id, Priority.HIGH)
    assert scene.queue() == [claim.job_id, first.id]


def test_the_priority_of_an_unknown_job_cannot_be_changed(scene: Scene) -> None:
    with pytest.raises(JobNotFound):
        scene.store.change_priority(new_job_id(), Priority.HIGH)
    assert scene.raw.keys("llm:job:*") == []
