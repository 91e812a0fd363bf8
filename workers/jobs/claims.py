"""How a worker claims jobs: one call of Redis for each, repeated until Redis replies.

A job that has run before begins once what it has published is read, and this worker's own earlier attempt has ended.
"""

import contextlib
import logging
import threading
import time
from typing import Protocol

import redis

from app.jobs.events import read_published
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim, JobStore, new_nonce
from workers.jobs.response_cache import ResponseCache
from workers.jobs.running_jobs import RunningJob, RunningJobs

RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


class ClaimHost(Protocol):
    """The worker, as its claims see it."""

    def begin_or_hold(self, job: RunningJob) -> None:
        """Begin a job that has been claimed, now or once it has its adapters."""

    def cancel(self, job: RunningJob) -> None: ...

    def make_room(self) -> None:
        """Claim again, if a slot is free."""


class Claims:
    """Adds what it claims to `jobs`. count: of all claims; takeovers: of those of jobs that had run before."""

    def __init__(
        self,
        client: RedisClient,
        store: JobStore,
        jobs: RunningJobs,
        cache: ResponseCache,
        worker: ClaimHost,
        worker_id: str,
    ) -> None:
        self.count = self.takeovers = 0
        self._redis = client
        self._store = store
        self._jobs = jobs
        self._cache = cache
        self._worker = worker
        self._worker_id = worker_id

    def claim_next(self) -> None:
        """Claim the first waiting job and begin it. Waits for one call of Redis, not for the job's end."""
        nonce = new_nonce()
        try:
            claim = self._store.claim(self._worker_id, nonce)
        except redis.RedisError as error:
            logger.warning("no job claimed: no reply from Redis (%s)", type(error).__name__)
            thread = threading.Thread(target=self._claim_later, args=[nonce], name="claim", daemon=True)
            self._jobs.begin_claim(thread)
            thread.start()
        else:
            self._take(claim)

    def _claim_later(self, nonce: str) -> None:
        """Repeat a claim until Redis replies.

        Redis remembers only the worker's last claim, so no other claim may be made meanwhile.
        """
        while True:
            time.sleep(RETRY_SECONDS)
            try:
                claim = self._store.claim(self._worker_id, nonce)
            except redis.RedisError:
                continue
            break
        self._take(claim)
        self._jobs.end_claim(threading.current_thread())
        self._worker.make_room()

    def _take(self, claim: Claim | None) -> None:
        """Begin a claimed job. None: there was none to claim."""
        if claim is None:
            return
        self.count += 1
        self.takeovers += claim.attempt > 1
        job, lost = RunningJob(claim, scope=self._cache.scope(claim)), self._jobs.get(claim.job_id)
        self._jobs.add(job)
        if lost is not None or claim.published_tokens:
            threading.Thread(target=self._take_over, args=[job, lost], name="take-over", daemon=True).start()
        else:
            self._worker.begin_or_hold(job)

    def _take_over(self, job: RunningJob, lost: RunningJob | None) -> None:
        """Begin a job that has run before. lost: this worker's own earlier attempt, whose lease expired."""
        if lost is not None:  # the output of two attempts must never mix
            self._worker.cancel(lost)
            lost.closed.wait()
        while job.claim.published_tokens and job.published is None:
            with contextlib.suppress(redis.RedisError):
                job.published = read_published(self._redis, job.id)
                tokens, attempt = len(job.published.tokens), job.claim.attempt
                logger.info("job %s continues after %d tokens, attempt %d", job.id, tokens, attempt)
                break
            time.sleep(RETRY_SECONDS)
        self._worker.begin_or_hold(job)
