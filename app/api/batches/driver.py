"""Drives batches: opens lines, makes their jobs, writes their results down. A thread of every API process.

One process drives at a time, and another continues when it dies. Two at once do no harm (`app.api.batches.batches`).
The jobs of batches that wait and run are bounded by what the workers serve at once: a batch never fills the queue, and
some slots are left for other requests.
"""

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

import redis

from app.api.batches.batch import Batch, LineResult
from app.api.batches.batches import BatchStore
from app.api.batches.files import FileStore
from app.api.batches.lines import Line, line_of, unasked_line
from app.api.job_service import JobService
from app.errors import JobNotFound, NotAdmitted
from app.jobs.job import Job, Status
from app.jobs.limits import BATCH_SHARE

BUSY_SECONDS = 0.1  # between two turns while there is a batch: a slot may be free for this long
IDLE_SECONDS = 2.0
SLOTS_SHARE = 0.75  # of all slots: a request that is waited for finds the others free
STORED_SECONDS = 2.0  # between two looks at what an owner stores
LINES_AT_ONCE = 500  # opened in one step
_UNSTOPPED = (Status.SUCCEEDED, Status.FAILED)  # how a job ends that was neither canceled nor too late

logger = logging.getLogger(__name__)


class BatchDriver:
    """One per API process; they take turns."""

    def __init__(self, batches: BatchStore, files: FileStore, jobs: JobService) -> None:
        self._batches = batches
        self._files = files
        self._jobs = jobs
        self._hours = jobs.config.batches.opening
        self._name = uuid.uuid4().hex
        self._lines: dict[tuple[str, int], Line] = {}  # open ones, parsed before
        self._full: dict[str, tuple[float, bool]] = {}  # by owner: when it was read, and whether its storage is full

    def start(self) -> None:
        threading.Thread(target=self._run, name="batch-driver", daemon=True).start()

    def turn(self) -> bool:
        """Do what there is to do now. Returns whether there is a batch that does not wait for its time."""
        unfinished = self._batches.unfinished()
        if not unfinished or not self._batches.lock_driver(self._name):
            self._lines.clear()
            self._full.clear()
            return False
        room, is_busy = self._free_jobs(), False
        for batch_id in unfinished:
            batch = self._batches.find(batch_id)
            if batch is None:
                self._batches.drop(batch_id)
                continue
            active = self._advance(batch, room)
            room -= active
            is_busy |= active > 0 or self._is_open(batch)
            self._batches.lock_driver(self._name)
        return is_busy

    def _run(self) -> None:
        pause = IDLE_SECONDS
        while True:
            time.sleep(pause)
            pause = IDLE_SECONDS
            try:
                if self.turn():
                    pause = BUSY_SECONDS
            except redis.RedisError as error:
                logger.debug("no turn: %s", type(error).__name__)
            except Exception as error:
                logger.error("a batch could not be driven; trying again", exc_info=error)

    def _free_jobs(self) -> int:
        """Jobs of batches that may wait or run at once."""
        slots = self._jobs.estimate.capacity().slots
        most = self._jobs.config.jobs.max_queued // 2
        return min(max(1, int(slots * SLOTS_SHARE)), max(1, most)) if slots else 0

    def _advance(self, batch: Batch, room: int) -> int:
        """Advance one batch. Returns how many jobs of it wait or run."""
        if batch.ending is None and time.time() >= batch.expires_at:
            self._batches.close(batch, "expired")
            batch.ending = "expired"
        elif batch.ending is None and batch.next_line < batch.lines and self._is_full(batch):
            self._batches.close(batch, "failed")
            batch.ending = "failed"
        lines = self._read(batch, self._batches.open_lines(batch))
        jobs = self._read_jobs(lines)
        left = self._collect(batch, lines, jobs)
        active = sum(not job.status.is_final for line in left for job in _made(line, jobs))
        if batch.ending is not None:
            self._cancel(left, jobs)
            self._give_up(batch)
        else:
            room = room if self._is_open(batch) else 0
            active += self._admit(left, jobs, room - active)
            if active < room and all(len(_made(line, jobs)) == len(line.job_ids) for line in left):
                active += self._open(batch, room - active)
        if batch.next_line >= batch.lines:
            self._batches.finish(batch)
        return active

    def _is_open(self, batch: Batch) -> bool:
        """Return whether it is being ended, or its lines may be submitted now."""
        return batch.ending is not None or batch.may_submit(self._hours, time.time())

    def _is_full(self, batch: Batch) -> bool:
        """Return whether the owner's files hold as much as they may, as it was `STORED_SECONDS` ago at most."""
        read_at, is_full = self._full.get(batch.owner, (-math.inf, False))
        if time.monotonic() - read_at >= STORED_SECONDS:
            is_full = self._files.is_full(batch.owner)
            self._full[batch.owner] = time.monotonic(), is_full
        return is_full

    def _open(self, batch: Batch, room: int) -> int:
        """Open as many lines as there is room for. Returns how many jobs they have made."""
        texts = self._batches.next_lines(batch, min(room, LINES_AT_ONCE))
        if not texts:
            return 0
        numbers = self._batches.open(batch, texts)
        lines = self._read(batch, numbers)
        left = self._collect(batch, lines, {})
        return self._admit(left, {}, room)

    def _admit(self, lines: Sequence[Line], jobs: Mapping[str, Job], room: int) -> int:
        """Make the jobs that are missing, as far as there is room. Returns how many.

        A job that was deleted before its result was written down is made again.
        """
        missing = [
            (job_id, request, line.principal)
            for line in lines
            for job_id, request in zip(line.job_ids, line.requests, strict=True)
            if job_id not in jobs
        ]
        made = 0
        for job_id, request, principal in missing[: max(0, room)]:
            try:
                self._jobs.store.admit(request, principal, job_id, limit_share=BATCH_SHARE)
            except NotAdmitted:  # in a later turn
                break
            made += 1
        return made

    def _collect(self, batch: Batch, lines: Sequence[Line], jobs: Mapping[str, Job]) -> list[Line]:
        """Write down the results of lines whose jobs have ended, and delete these jobs. Returns the other lines."""
        results = {line.number: _result(batch, line, _made(line, jobs)) for line in lines}
        written = [result for result in results.values() if result is not None]
        if written:
            self._batches.record_results(batch, written)
        for line in lines:
            if results[line.number] is not None:
                self._lines.pop((batch.id, line.number), None)
                for job in _made(line, jobs):
                    self._jobs.store.delete(job)
        return [line for line in lines if results[line.number] is None]

    def _cancel(self, lines: Sequence[Line], jobs: Mapping[str, Job]) -> None:
        for line in lines:
            for job in _made(line, jobs):
                with contextlib.suppress(JobNotFound):
                    self._jobs.store.cancel(job.id)

    def _give_up(self, batch: Batch) -> None:
        """Write the results of some of the lines that have not been opened: why they were not submitted."""
        assert batch.ending is not None, "the batch is closed"
        start, texts = batch.next_line, self._batches.next_lines(batch, LINES_AT_ONCE)
        if texts:
            numbers = self._batches.open(batch, texts)
            unasked = [unasked_line(batch, number, texts[number - start]) for number in numbers]
            self._batches.record_results(batch, [line.given_up(batch.ending) for line in unasked])

    def _read(self, batch: Batch, numbers: Sequence[int]) -> list[Line]:
        unread = [number for number in numbers if (batch.id, number) not in self._lines]
        if unread:
            for number, text in zip(unread, self._batches.lines(batch, unread), strict=True):
                line = line_of(batch, number, text, self._jobs)
                self._lines[batch.id, number] = line
        return [self._lines[batch.id, number] for number in numbers]

    def _read_jobs(self, lines: Sequence[Line]) -> dict[str, Job]:
        """Return the jobs of these lines, by their ids."""
        ids = [job_id for line in lines if line.rejection is None for job_id in line.job_ids]
        jobs = self._jobs.store.read_many(ids) if ids else []
        return {job.id: job for job in jobs if job is not None}


def _made(line: Line, jobs: Mapping[str, Job]) -> list[Job]:
    """Return those of its jobs that exist, in order."""
    return [jobs[job_id] for job_id in line.job_ids if job_id in jobs]


def _result(batch: Batch, line: Line, jobs: Sequence[Job]) -> LineResult | None:
    """Return the result of a line, None as long as its jobs have not ended."""
    if line.rejection is not None:
        return line.result(())
    if any(not job.status.is_final for job in jobs):
        return None
    is_whole = len(jobs) == len(line.job_ids)
    if batch.ending is not None and not (is_whole and all(job.status in _UNSTOPPED for job in jobs)):
        return line.given_up(batch.ending)
    return line.result(jobs) if is_whole else None
