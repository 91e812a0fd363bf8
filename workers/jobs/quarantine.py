"""Quarantine: after a worker died, each job that ran there (a *suspect*) runs alone for `TRIAL_TOKENS` tokens before
others may run beside it.

During such a trial the other jobs of this worker pause in their slots, and a key in Redis names the suspect: if the
worker dies, the reaper blames that job. A job that has already lost `MAX_LOSSES_IN_COMPANY` workers, or one fewer than
`max_attempts`, runs alone until it ends. Why every other suspect runs alone only for a while: docs/decisions/0005.
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
MAX_LOSSES_IN_COMPANY = 2  # after this many losses a job runs alone until it ends
TRIAL_KEY_EXTRA_SECONDS = 3600  # added to the job's timeout: the trial's key outlives the trial, for the reaper


class ClaimControl(Protocol):
    """The worker, as its quarantine sees it."""

    def make_room(self) -> None:
        """Claim again, if a slot is free: a suspect has passed its trial or ended."""


class Quarantine:
    """The suspects among the jobs of one worker. A thread of its own begins and ends the trials.

    runner: runs the jobs; set before the first job is claimed. trials: how many have begun.
    """

    runner: Runner

    def __init__(
        self, client: RedisClient, worker_id: str, jobs: RunningJobs, worker: ClaimControl, *, max_attempts: int
    ) -> None:
        self._redis = client
        self._trial_key = keys.trial(worker_id)
        self._jobs = jobs
        self._worker = worker
        self._max_attempts = max_attempts
        self._on_trial: RunningJob | None = None
        self.trials = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quarantine")

    @property
    def is_empty(self) -> bool:
        return self._on_trial is None and not self._jobs.suspects

    def advance(self) -> None:
        """End the current trial and begin the next, where possible.

        Call it when a suspect is ready or has passed its trial, and when any job has ended.
        """
        if not self.is_empty:
            self._thread.submit(self._advance)

    def _advance(self) -> None:
        on_trial = self._on_trial
        if on_trial is not None:
            if on_trial in self._jobs and not on_trial.passed_trial:
                return
            self._end_trial()
        suspects = self._jobs.suspects
        ready = next((job for job in suspects if job.is_ready and not job.is_handed_back), None)
        # A job that needs the worker to itself waits until the others end. The worker claims nothing meanwhile.
        if ready is not None and not (self._needs_solitude(ready) and len(self._jobs) > len(suspects)):
            self._begin_trial(ready)
        elif on_trial is not None and not suspects:
            self._worker.make_room()

    def _begin_trial(self, job: RunningJob) -> None:
        self._on_trial = job
        self.trials += 1
        self.runner.pause_all()  # the key names one job while only that one can end the worker
        seconds = int(job.request.timeout_seconds) + TRIAL_KEY_EXTRA_SECONDS
        with contextlib.suppress(redis.RedisError):  # without the key, the reaper suspects all jobs of this worker
            self._redis.set(self._trial_key, job.id, ex=seconds)
        self.runner.submit_alone(job, tokens=None if self._needs_solitude(job) else TRIAL_TOKENS)

    def _end_trial(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self._redis.delete(self._trial_key)
        self.runner.release_others()
        self._on_trial = None

    def _needs_solitude(self, job: RunningJob) -> bool:
        return job.claim.losses >= min(MAX_LOSSES_IN_COMPANY, self._max_attempts - 1)
