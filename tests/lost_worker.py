"""The state that a dead worker leaves behind, without waiting for its lease to expire."""

import redis

from app.jobs import keys
from app.jobs.reaper import Reaper
from app.jobs.redis_client import connect


def reaper(url: str, *, model: str = "m", max_attempts: int = 3) -> Reaper:
    return Reaper(connect(url), model=model, ttl_seconds=60, max_attempts=max_attempts)


def end_lease(url: str, job_id: str, *, model: str = "m") -> None:
    """Let the lease of a running job expire."""
    with redis.Redis.from_url(url) as raw:
        raw.hset(keys.job(job_id), "lease_until", "1")
        raw.zadd(keys.running(model), {job_id: 1})


def lose_worker(url: str, job_id: str, *, model: str = "m", max_attempts: int = 3) -> None:
    """Let the worker of a running job count as dead, and let the reaper take the job from it."""
    end_lease(url, job_id, model=model)
    with redis.Redis.from_url(url) as raw:
        raw.delete(keys.reaper(model))
    reaper(url, model=model, max_attempts=max_attempts).reap()
