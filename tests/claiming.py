"""Claims of a certain job, for tests in which other jobs wait too."""

from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.store import Claim, JobStore


def put_first(raw: "redis.Redis", job_id: str, model: str = "m") -> None:
    """Move a waiting job before all others."""
    tenant = raw.hget(keys.job(job_id), "tenant") or ""
    raw.zadd(keys.queue(tenant, model), {job_id: 0}, xx=True)
    raw.zadd(keys.tenants(model), {tenant: -1}, xx=True)


def claim_job(
    store: JobStore, raw: "redis.Redis", job_id: str, worker_id: str = "worker-1", model: str = "m"
) -> Claim | None:
    """Claim this job for a worker; return None if it does not wait."""
    if raw.zscore(keys.waiting(model), job_id) is None:
        return None
    put_first(raw, job_id, model)
    claim = store.claim(worker_id)
    assert claim is None or claim.job_id == job_id
    return claim


class Claiming(Protocol):
    """A worker that claims the first job."""

    def claim_next(self) -> None: ...


def run_job(worker: Claiming, raw: "redis.Redis", job_id: str, model: str = "m") -> None:
    """Let the worker claim this job, as if a doorbell had arrived while it was the first."""
    put_first(raw, job_id, model)
    worker.claim_next()
