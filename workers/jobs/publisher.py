"""Carries what jobs produce to Redis: deltas to event streams, outcomes to job records, notifications to the API.

One thread, one write per round for all jobs, first texts before the rest. A job whose stream a client follows is
written at every step; the others every `UNFOLLOWED_SECONDS`, so that another worker could continue them, and at their
end. While Redis is unreachable everything is kept and sent again: each delta is written once, however often it is sent.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import redis

from app.config.log import log_event
from app.jobs.job import Status
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.output_writer import FENCED, MISSING, OutputWrite, OutputWriter
from app.jobs.redis_client import RedisClient
from app.jobs.sharing import DEFAULT_SHARING, Sharing
from app.jobs.store import JobStore
from workers.engines.runner import Report
from workers.engines.runner_counts import Distribution
from workers.jobs.response_cache import ResponseCache
from workers.jobs.running_jobs import JobControl, RunningJob, RunningJobs

GATHERING_SECONDS = 0.1  # while no client follows: each waking of this thread delays the one that decodes
FIRST_TEXT_SECONDS = 0.001  # once in the life of a job that is followed
RETRY_SECONDS = 0.5
REDIS_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)  # seconds

logger = logging.getLogger(__name__)


class Publisher:
    """Writes `jobs`, and closes those that have ended. A job that ends has a line in the log.

    round_trips: seconds of each write. fenced_writes: those that were rejected, as another worker has the job.
    on_end: called in its thread with each job whose end it has written.

    A job that was lost while it ran here is canceled. It stays registered until its sequence ends. If this worker
    claims it again, the new attempt waits until then, so that two attempts never mix.
    """

    def __init__(
        self,
        client: RedisClient,
        store: JobStore,
        jobs: RunningJobs,
        cache: ResponseCache,
        control: JobControl,
        *,
        model: str,
        ttl_seconds: int,
        worker_id: str,
        sharing: Sharing = DEFAULT_SHARING,
        ledger: LedgerLimits = LedgerLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.fenced_writes = 0
        self.on_end: Callable[[RunningJob], None] = lambda job: None
        self.round_trips = Distribution(REDIS_BOUNDS)
        self._worker_id = worker_id
        self._writer = OutputWriter(client, model=model, ttl_seconds=ttl_seconds, sharing=sharing, ledger=ledger)
        self._store = store
        self._jobs = jobs
        self._cache = cache
        self._control = control
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._reports: deque[Report] = deque()
        self._woken_at = 0.0
        self._hands_back = False
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def publish(self, reports: Sequence[Report]) -> None:
        """Take what jobs have produced, and wake the publisher's thread where it has to write.

        Returns at once, with one exception: after the first text of a followed job it sleeps 1 ms, so that the
        publisher's thread runs first.
        """
        self._reports.extend(reports)
        now, is_urgent, has_first_text = time.monotonic(), False, False
        for job, delta, outcome in reports:
            assert isinstance(job, RunningJob)
            is_urgent = is_urgent or outcome is not None or job.followed
            if delta is not None and delta.text and job.has_no_text_yet:
                has_first_text = True
        if is_urgent or now - self._woken_at >= GATHERING_SECONDS:
            self._woken_at = now
            self.wake()
        if has_first_text:
            time.sleep(FIRST_TEXT_SECONDS)

    def wake(self) -> None:
        """Start a round of the publisher's thread now."""
        self._wakes.put(None)

    def hand_back_all(self) -> None:
        """Write what jobs without an outcome have produced, and return them to the waiting jobs. Returns at once."""
        self._hands_back = True
        self.wake()

    def _run(self) -> None:
        while True:
            self._wakes.get()
            while not self._wakes.empty():
                self._wakes.get()
            self._take_reports()
            while not self._write_due():
                time.sleep(RETRY_SECONDS)

    def _take_reports(self) -> None:
        while self._reports:
            job, delta, outcome = self._reports.popleft()
            assert isinstance(job, RunningJob)
            job.add(delta, outcome)
        if self._hands_back:
            for job in self._jobs:
                job.is_handed_back = job.outcome is None

    def _write_due(self) -> bool:
        """Write every job that has output due. False: Redis did not confirm it, try again."""
        due = [job for job in self._jobs if job.freeze()]
        # a client waits for a first text: it is written before the rest
        first = [job for job in due if job.next_write_is_first_text]
        rest = [job for job in due if not job.next_write_is_first_text]
        try:
            return all(self._write(jobs) for jobs in (first, rest) if jobs)
        except redis.RedisError as error:
            logger.warning("results not written to Redis (%s); they are kept and sent again", type(error).__name__)
            return False

    def _write(self, jobs: Sequence[RunningJob]) -> bool:
        """False: Redis lacks what it had confirmed before, as after a crash of its host; all of it is due again."""
        cacheable = {job.cache_key: job.id for job in jobs if job.cache_key and _succeeds(job)}
        if cacheable:
            self._cache.keep(cacheable)
        writes = [job.writes() for job in jobs]
        outputs = [output for own in writes for output in own]
        verdicts = iter(self._write_outputs(outputs) if outputs else ())
        is_complete = True
        for job, own in zip(jobs, writes, strict=True):
            verdict = {next(verdicts) for _ in own}
            if MISSING in verdict:
                job.rewind()
                is_complete = False
            else:
                self._settle(job, is_fenced=FENCED in verdict)
        return is_complete

    def _write_outputs(self, outputs: Sequence[OutputWrite]) -> list[int]:
        began_at = time.perf_counter()
        verdicts = self._writer.write(outputs)
        self.round_trips.add(time.perf_counter() - began_at)
        self.fenced_writes += verdicts.count(FENCED)
        return verdicts

    def _settle(self, job: RunningJob, *, is_fenced: bool) -> None:
        """Apply the verdict of a write that has reached Redis."""
        job.confirm()
        if job.is_handed_back and not is_fenced:
            self._store.hand_back(job.claim)
        if job.outcome is not None or job.is_handed_back:
            if is_fenced:
                logger.warning("job %s belongs to another worker now; its result here is dropped", job.id)
            elif job.outcome is not None:
                log_event(logger, logging.INFO, f"job {job.outcome.status}", **job.end_line(), worker=self._worker_id)
                self.on_end(job)
            self._control.remove(job)
            job.closed.set()
        elif is_fenced:
            self._control.cancel(job)


def _succeeds(job: RunningJob) -> bool:
    return job.outcome is not None and job.outcome.status is Status.SUCCEEDED
