"""Claims of a certain job, for tests in which others wait, too."""

from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.store import Claim, JobStore


def put_first(raw: "redis.Redis", job_id: str, model: str = "m") -> None:
    """A waiting job comes before all others."""
    raw.zadd(keys.queued(model), {job_id: 0}, xx=True)


def claim_job(
    store: JobStore, raw: "redis.Redis", job_id: str, worker_id: str = "worker-1", model: str = "m"
) -> Claim | None:
    """A worker claims this job; None where it does not wait."""
    put_first(raw, job_id, model)
    if raw.zscore(keys.queued(model), job_id) is None:
        return None
    claim = store.claim(worker_id)
    assert claim is None or claim.job_id == job_id
    return claim


class Claiming(Protocol):
    """A worker."""

    def claim_next(self) -> None: ...


def run_job(worker: Claiming, raw: "redis.Redis", job_id: str, model: str = "m") -> None:
    """The worker receives a doorbell, and this job is the first."""
    put_first(raw, job_id, model)
    worker.claim_next()
