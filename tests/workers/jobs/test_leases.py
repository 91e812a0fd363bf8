"""Renewal of claims and the control channel, against a real Valkey."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from app.jobs import keys
from app.jobs.job import JobRequest, Kind
from app.jobs.redis_client import RedisClient
from app.jobs.store import LEASE_SECONDS, Claim, JobStore
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, connected_workers, read_workers, retire
from tests.lost_worker import lose_worker
from tests.principals import ME
from tests.waiting import scaled
from workers.jobs.leases import Leases
from workers.jobs.running_jobs import RunningJob, RunningJobs


class RecordingWorker:
    """Stands in for the worker and records which jobs were canceled and followed."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.canceled: list[str] = []
        self.followed: list[str] = []

    def cancel(self, job: RunningJob) -> None:
        self.canceled.append(job.id)

    def follow(self, job: RunningJob) -> None:
        self.followed.append(job.id)

    def remove(self, job: RunningJob) -> None:
        raise AssertionError("leases end no job")

    def announce(self) -> None:
        announce(self.client, WorkerInfo(id="worker-1", model="m", family="f", state=WorkerState.READY, slots=4))


@pytest.fixture
def worker(redis_client: RedisClient) -> RecordingWorker:
    return RecordingWorker(redis_client)


@pytest.fixture
def jobs() -> RunningJobs:
    return RunningJobs()


@pytest.fixture
def leases(redis_client: RedisClient, jobs: RunningJobs, worker: RecordingWorker) -> Iterator[Leases]:
    leases = Leases(redis_client, jobs, worker, model="m", worker_id="worker-1")
    yield leases
    leases.stop()


def claimed(store: JobStore) -> Claim:
    store.admit(JobRequest(kind=Kind.GENERATE, prompt="p"), ME)
    claim = store.claim("worker-1")
    assert claim is not None
    return claim


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + scaled(5)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_renewal_moves_the_lease_and_announces_the_worker(
    leases: Leases,
    jobs: RunningJobs,
    store: JobStore,
    redis_client: RedisClient,
    redis_url: str,
    worker: RecordingWorker,
) -> None:
    claim = claimed(store)
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        raw.hset(keys.job(claim.job_id), "lease_until", "1")
        jobs.add(RunningJob(claim))
        leases.renew_all()
        renewed = float(raw.hget(keys.job(claim.job_id), "lease_until") or 0)
        assert renewed == pytest.approx(time.time() + LEASE_SECONDS, abs=2)
        assert raw.zscore(keys.running("m"), claim.job_id) == pytest.approx(renewed)
        assert 0 < raw.ttl(keys.alive("m")) <= 15
    assert [info.id for info in read_workers(redis_client)] == ["worker-1"]
    assert (worker.canceled, worker.followed) == ([], [])


def test_a_renewal_reports_a_cancellation_and_a_follower_that_the_channel_missed(
    leases: Leases, jobs: RunningJobs, store: JobStore, worker: RecordingWorker
) -> None:
    canceled, followed = claimed(store), claimed(store)
    store.cancel(canceled.job_id)
    store.follow(followed.job_id, "api")
    jobs.add(RunningJob(canceled))
    jobs.add(RunningJob(followed))
    leases.renew_all()
    assert (worker.canceled, worker.followed) == ([canceled.job_id], [followed.job_id])


def test_a_job_that_another_worker_has_claimed_is_canceled(
    leases: Leases, jobs: RunningJobs, store: JobStore, worker: RecordingWorker, redis_url: str
) -> None:
    claim = claimed(store)
    jobs.add(RunningJob(claim))
    lose_worker(redis_url, claim.job_id)
    assert store.claim("worker-2") is not None
    leases.renew_all()
    assert worker.canceled == [claim.job_id]


def test_the_control_channel_is_read_at_once_and_again_after_its_connection_was_killed(
    leases: Leases,
    jobs: RunningJobs,
    store: JobStore,
    worker: RecordingWorker,
    redis_client: RedisClient,
    redis_url: str,
) -> None:
    claim = claimed(store)
    jobs.add(RunningJob(claim))
    leases.start()
    with redis.Redis.from_url(redis_url) as raw:
        eventually(lambda: raw.pubsub_numsub(keys.CONTROL_CHANNEL)[0][1] >= 1)
        store.follow(claim.job_id, "api")
        eventually(lambda: worker.followed == [claim.job_id])
        raw.client_kill_filter(_type="pubsub")
        eventually(lambda: raw.publish(keys.CONTROL_CHANNEL, f"cancel:{claim.job_id}") > 0)
        eventually(lambda: claim.job_id in worker.canceled)
        redis_client.publish(keys.CONTROL_CHANNEL, "cancel:a-job-of-another-worker")
    assert set(worker.canceled) == {claim.job_id}


def test_a_retired_worker_is_no_longer_listed(leases: Leases, redis_client: RedisClient) -> None:
    leases.renew_all()
    retire(redis_client, "worker-1")
    assert read_workers(redis_client) == []


def test_a_worker_whose_entry_has_expired_is_no_longer_listed(
    leases: Leases, redis_client: RedisClient, redis_url: str
) -> None:
    leases.renew_all()
    redis_client.delete(keys.worker("worker-1"))
    assert read_workers(redis_client) == []
    with redis.Redis.from_url(redis_url) as raw:
        assert raw.scard(keys.WORKERS) == 0


def test_redis_knows_whether_the_worker_is_connected(redis_client: RedisClient, leases: Leases) -> None:
    info = WorkerInfo(id="worker-1", model="m", family="f", state=WorkerState.READY, has_channel=True)
    older = replace(info, id="worker-2", has_channel=False)
    assert connected_workers(redis_client, [info, older]) == [older]
    leases.start()
    eventually(lambda: connected_workers(redis_client, [info]) == [info])
    leases.stop()
    eventually(lambda: connected_workers(redis_client, [info]) == [])
