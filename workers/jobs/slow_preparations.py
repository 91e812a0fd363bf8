"""Jobs that take long to prepare hold no slot meanwhile.

A chat is prepared in a millisecond. One whose template loops, or whose text takes the tokenizer seconds, would hold a
slot in which nothing is computed, and a client that sends more of them than there are slots would stop the others. So
the worker claims another job for each. Those that are ready when no slot is free wait in the runner.
"""

import queue
import threading
import time
from collections.abc import Callable

from app.jobs.job import Kind
from workers.jobs.running_jobs import RunningJob, RunningJobs

SLOW_SECONDS = 0.05
MOST = 256  # that hold no slot: each has its request in memory


class SlowPreparations:
    """Which of these jobs take long to prepare. on_slow: called from a thread of its own when there is one more."""

    def __init__(self, jobs: RunningJobs, on_slow: Callable[[], None]) -> None:
        self._jobs = jobs
        self._on_slow = on_slow
        self._submitted: queue.SimpleQueue[RunningJob | None] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._run, name="slow-preparations", daemon=True).start()

    def watch(self, job: RunningJob) -> None:
        """Look at a job that was submitted to the runner, unless it is prepared already."""
        if _is_in_preparation(job):
            self._submitted.put(job)

    def count(self) -> int:
        """Return how many jobs hold no slot."""
        return min(MOST, sum(_is_slow(job) for job in self._jobs))

    def close(self) -> None:
        self._submitted.put(None)

    def _run(self) -> None:
        while self._look_at(self._submitted.get()):
            pass

    def _look_at(self, job: RunningJob | None) -> bool:
        """Return False at the end. The thread holds no job while it waits for the next."""
        if job is None:
            return False
        time.sleep(max(0.0, (job.submitted_at or 0.0) + SLOW_SECONDS - time.monotonic()))
        if _is_slow(job):
            self._on_slow()
        return True


def _is_slow(job: RunningJob) -> bool:
    began = job.submitted_at
    return began is not None and time.monotonic() - began >= SLOW_SECONDS and _is_in_preparation(job)


def _is_in_preparation(job: RunningJob) -> bool:
    return job.run is None and job.outcome is None and job.request.kind is not Kind.EMBED
