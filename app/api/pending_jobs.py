"""Waits for the jobs of one request: their ends, or all of their events."""

import contextlib
import logging
import queue
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import redis

from app.api.job_ends import raise_unless_succeeded
from app.api.schemas.job import job_path
from app.api.waiting.waiters import ClientGone, Inbox, Waiter, Waiters
from app.errors import JobNotFound, LLMAPIError, NotAdmitted, NoWorker, StoreUnavailable, WaitTimeout
from app.jobs.events import End, EventEntry
from app.jobs.job import Job, JobRequest
from app.jobs.principal import Principal
from app.jobs.store import JobStore, new_job_id

RETRY_SECONDS = 2  # Redis restarts within seconds, or for long
WAIT_GRACE_SECONDS = 30.0  # beyond the time of the job itself: for its wait in the queue, and its last events

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request.

    Args:
        principal: whose jobs they are.
        idempotency_key: of this request, None without one.
        client_socket: watched while the request waits; None where the server does not show it.
    """

    principal: Principal
    idempotency_key: str | None = None
    client_socket: socket.socket | None = None


class PendingJobs:
    """The jobs that one request waits for, in the order of its response. A context manager; `close` ends the wait.

    Some of the jobs are made when others have ended, so that one request leaves slots for the next. At the end of the
    wait, the jobs that the request has made and that have not ended are canceled, if it `cancels` and this process is
    not shutting down; else those that are left are made. Those that are not to be stored are deleted.
    """

    def __init__(
        self,
        store: JobStore,
        waiters: Waiters,
        submit: Callable[[JobRequest, Principal, str | None, str | None, str], Job],
        most_at_once: Callable[[], int],
        caller: Caller,
        position: str | None,
        *,
        cancels: bool = False,
    ) -> None:
        """Begin the wait.

        Args:
            submit: `JobService.submit`.
            most_at_once: returns how many of its jobs may wait and run at this moment.
            position: where the events of each job are read from; None: only their ends are waited for.

        Raises TooManyWaiters, ShuttingDown.
        """
        self.jobs: list[Job] = []
        self._store = store
        self._waiters = waiters
        self._submit = submit
        self._most_at_once = most_at_once
        self._caller = caller
        self._position = position
        self._cancels = cancels
        self._inbox: Inbox = queue.SimpleQueue()
        self._pending: dict[str, int] = {}  # jobs that have not ended, and their indexes in `jobs`
        self._later: deque[tuple[int, JobRequest]] = deque()  # jobs that are not made yet
        self._own: set[str] = set()
        self._unstored: list[Job] = []
        self._wait_seconds = 0.0
        self._deadline = 0.0
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(waiters.admit_request())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def has_ended(self) -> bool:
        return not self._pending and not self._later

    def submit(self, requests: Sequence[JobRequest]) -> None:
        """Admit the jobs, each under an idempotency key of its own. Raises what `JobService.submit` raises.

        A job that was made by an earlier request is waited for like one of this request, but never canceled. Until a
        job is made, `jobs` has its id, which is another one if it was made earlier.
        """
        self._wait_seconds = requests[0].timeout_seconds + WAIT_GRACE_SECONDS
        self._admit(0, requests[0], new_job_id())
        self.jobs += [replace(self.jobs[0], id=new_job_id()) for _ in requests[1:]]
        self._later.extend(enumerate(requests[1:], 1))
        try:
            self._admit_some()
        except BaseException:
            self._later.clear()
            raise

    def join(self, job: Job, index: int = 0) -> None:
        """Wait for a job that exists already."""
        self._add(job, index)
        with contextlib.suppress(redis.exceptions.OutOfMemoryError):  # it is read every few seconds then
            self._store.follow(job.id, self._waiters.channel, with_events=self._position is not None)
        waiter = self._wait_for(job.id)
        waiter.is_admitted = True
        self._waiters.read_now(waiter)

    def next_event(self, timeout_seconds: float) -> tuple[int, EventEntry] | None:
        """Return the index of a job and its next event, None when none came in time.

        Raises JobNotFound, ShuttingDown.
        """
        item = self._next(timeout_seconds)
        if item is None:
            return None
        index, entry = item
        assert isinstance(entry, EventEntry), "the events are waited for"
        return index, entry

    def next_end(self, timeout_seconds: float) -> tuple[int, Job] | None:
        """Return the index of a job and the job, which has ended; None when none ended in time.

        Raises JobNotFound, ShuttingDown, ClientGone.
        """
        item = self._next(timeout_seconds)
        if item is None:
            return None
        index, job = item
        assert isinstance(job, Job), "the ends are waited for"
        return index, job

    def results(self) -> list[Job]:
        """Wait until all submitted jobs have succeeded, and return them.

        Raises the first error that a job ended with, WaitTimeout when they take longer than they may run, JobNotFound,
        ShuttingDown and ClientGone.
        """
        results: dict[int, Job] = {}
        with self._waiters.disconnects.watching(self._caller.client_socket, self._client_gone):
            while not self.has_ended:
                item = self.next_end(self._deadline - time.monotonic())
                if item is not None:
                    index, job = item
                    raise_unless_succeeded(job.status, job.error, index)
                    results[index] = job
                elif time.monotonic() >= self._deadline:
                    self._cancels = False
                    raise WaitTimeout(
                        f"the job has not ended yet and continues; read it at {job_path(self.jobs[0].id)}"
                    )
        return [results[index] for index in sorted(results)]

    def close(self) -> None:
        """End the wait; further calls do nothing."""
        self._resources.close()
        if self._cancels and not self._waiters.is_shut_down:
            for job_id in self._pending.keys() & self._own:
                self._cancel(job_id)
        else:
            self._make_the_rest()
        self._later.clear()
        self._own.clear()
        while self._unstored:
            self._delete(self._unstored.pop())

    def _admit_some(self) -> None:
        """Make as many of the jobs that are left as may run now."""
        while self._later and len(self._pending) < self._most_at_once():
            index, request = self._later[0]
            self._admit(index, request, self.jobs[index].id)
            self._later.popleft()

    def _admit_more(self) -> None:
        """Make jobs in the place of one that has ended; where that fails now, when the next one ends.

        Raises NotAdmitted, StoreUnavailable: there is no next one.
        """
        try:
            self._admit_some()
        except (NotAdmitted, redis.RedisError) as error:
            if self._pending:
                return
            if isinstance(error, NotAdmitted):
                raise
            detail = "Redis does not answer, so the choices that are left were not made; try again"
            raise StoreUnavailable(detail, retry_after_seconds=RETRY_SECONDS) from None

    def _admit(self, index: int, request: JobRequest, job_id: str) -> None:
        waiter = self._wait_for(job_id)
        try:
            job = self._submit(request, self._caller.principal, self._key_of(index), job_id, self._waiters.channel)
        except LLMAPIError as error:
            error.job_index = index
            raise
        self._deadline = time.monotonic() + self._wait_seconds
        if job.id != job_id:
            self.join(job, index)
            return
        waiter.is_admitted = True
        self._own.add(job_id)
        if not request.stored:
            self._unstored.append(job)
        self._add(job, index)

    def _make_the_rest(self) -> None:
        """Make the jobs that are left, for a client that comes back for them."""
        for index, request in self._later:
            try:
                self._submit(request, self._caller.principal, self._key_of(index), self.jobs[index].id, "")
            except (LLMAPIError, redis.RedisError) as error:
                logger.warning("jobs of a request are not made: %d, %s", len(self.jobs) - index, type(error).__name__)
                return

    def _key_of(self, index: int) -> str | None:
        """Return the idempotency key of a job of this request. No key of a client has a space."""
        key = self._caller.idempotency_key
        return key if key is None or index == 0 else f"{key} {index}"

    def _add(self, job: Job, index: int) -> None:
        self._pending[job.id] = index
        self.jobs[index : index + 1] = [job]

    def _wait_for(self, job_id: str) -> Waiter:
        waiter = Waiter(job_id, self._position, self._inbox)
        self._waiters.add(waiter)
        self._resources.callback(self._waiters.remove, waiter)
        return waiter

    def _next(self, timeout_seconds: float) -> tuple[int, Job | EventEntry] | None:
        try:
            job_id, item = self._inbox.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            return None
        if isinstance(item, JobNotFound) and job_id not in self._pending:
            return None  # it has ended, and its record has expired while others run
        if isinstance(item, Exception):
            self._cancels &= not isinstance(item, NoWorker)  # the job waits for one
            raise item
        index = self._pending.get(job_id)
        if index is None:  # the end of a job may be read twice
            return None
        if isinstance(item, Job) or isinstance(item.event, End):
            del self._pending[job_id]
            self._admit_more()
        return index, item

    def _client_gone(self) -> None:
        self._inbox.put(("", ClientGone()))

    def _cancel(self, job_id: str) -> None:
        try:
            self._store.cancel(job_id)
        except JobNotFound:
            pass
        except redis.RedisError as error:
            logger.warning("job %s continues although its client has left: %s", job_id, type(error).__name__)

    def _delete(self, job: Job) -> None:
        """Delete a job; one that has not ended yet goes by its time to live."""
        try:
            self._store.delete(job)
        except redis.RedisError as error:
            logger.warning("job %s is kept for its ttl: %s", job.id, type(error).__name__)


class PastEvents:
    """The events of a job that has ended, read as those of `PendingJobs` are."""

    def __init__(self, job: Job, entries: Sequence[EventEntry]) -> None:
        self.jobs = [job]
        self._entries = deque(entries)

    @property
    def has_ended(self) -> bool:
        return not self._entries

    def next_event(self, timeout_seconds: float) -> tuple[int, EventEntry]:
        return 0, self._entries.popleft()

    def close(self) -> None:
        """Nothing is held."""
