"""Jobs that were running when their worker died, and may have been the reason: each is tried alone, one at a time.

While one is on trial the other jobs of this worker pause in their slots, and a key in Redis names it: should the worker
die, the reaper knows which job to suspect. It has passed when it is `TRIAL_TOKENS` tokens beyond the place where its
last worker left it. A job that fails at its next death runs in solitude from its first token to its last, so that no
other job is lost with it. Why not simply every job alone to its end: docs/decisions/0005.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.redis_client import RedisClient
from workers.engines.runner import Runner
from workers.jobs.running_jobs import RunningJob, RunningJobs

TRIAL_TOKENS = 16
COMPANY_LOSSES = 2  # as often, at most, may a job take other jobs down with it
MARK_SECONDS = 3600  # beyond the job's own time, for the reaper to read


class RoomKeeper(Protocol):
    """The worker, as its quarantine sees it."""

    def make_room(self) -> None:
        """A suspect has passed or left: the worker may have room again."""


class Quarantine:
    """The suspects among the jobs of one worker. One thread of its own begins and ends trials.

    runner: where the jobs run; set before the first job comes.
    """

    runner: Runner

    def __init__(
        self, client: RedisClient, worker_id: str, jobs: RunningJobs, worker: RoomKeeper, *, max_attempts: int
    ) -> None:
        self._redis = client
        self._mark = keys.trial(worker_id)
        self._jobs = jobs
        self._worker = worker
        self._max_attempts = max_attempts
        self._on_trial: RunningJob | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quarantine")

    @property
    def is_empty(self) -> bool:
        return self._on_trial is None and not self._jobs.suspects

    def advance(self) -> None:
        """End the present trial, and begin the next, if they can: call it when a suspect is ready or has passed, and
        when any job has ended.
        """
        if not self.is_empty:
            self._thread.submit(self._advance)

    def _advance(self) -> None:
        on_trial = self._on_trial
        if on_trial is not None:
            if on_trial in self._jobs and not on_trial.has_passed:
                return
            self._end_trial()
        suspects = self._jobs.suspects
        ready = next((job for job in suspects if job.is_ready and not job.leaves), None)
        if ready is not None and not (self._needs_solitude(ready) and len(self._jobs) > len(suspects)):
            self._begin_trial(ready)  # where others are left, they end by themselves, and no more are fetched
        elif on_trial is not None and not suspects:
            self._worker.make_room()

    def _begin_trial(self, job: RunningJob) -> None:
        self._on_trial = job
        seconds = int(job.request.timeout_seconds) + MARK_SECONDS
        with contextlib.suppress(redis.RedisError):  # without the mark all jobs here are suspected, no more than that
            self._redis.set(self._mark, job.id, ex=seconds)
        self.runner.submit_alone(job, tokens=None if self._needs_solitude(job) else TRIAL_TOKENS)

    def _end_trial(self) -> None:
        self.runner.release_others()
        with contextlib.suppress(redis.RedisError):
            self._redis.delete(self._mark)
        self._on_trial = None

    def _needs_solitude(self, job: RunningJob) -> bool:
        return job.claim.losses >= min(COMPANY_LOSSES, self._max_attempts - 1)
