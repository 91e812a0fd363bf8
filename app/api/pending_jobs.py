"""Waits for the jobs of one request: their ends, or all of their events."""

import contextlib
import logging
import queue
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import redis

from app.api.schemas.job import job_path
from app.api.waiting.waiters import ClientGone, Inbox, Waiter, Waiters
from app.errors import (
    EngineFailed,
    JobCanceled,
    JobExpired,
    JobNotFound,
    LLMAPIError,
    WaitTimeout,
    error_from_code,
)
from app.jobs.events import End, EventEntry
from app.jobs.job import Job, JobError, JobRequest, Status
from app.jobs.store import JobStore, new_job_id

WAIT_GRACE_SECONDS = 30.0  # beyond the time of the job itself: for its wait in the queue, and its last events

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request.

    Args:
        owner: the jobs belong to this owner, who can read only its own jobs.
        idempotency_key: of this request, None without one.
        client_socket: watched while the request waits; None where the server does not show it.
    """

    owner: str
    idempotency_key: str | None = None
    client_socket: socket.socket | None = None


class PendingJobs:
    """The jobs that one request waits for, in the order of its response. A context manager; `close` ends the wait.

    At the end of the wait, the jobs that the request has made and that have not ended are canceled, if it `cancels` and
    this process is not shutting down. Those that are not to be stored are deleted.
    """

    def __init__(
        self,
        store: JobStore,
        waiters: Waiters,
        submit: Callable[[JobRequest, str, str | None, str | None], Job],
        caller: Caller,
        position: str | None,
        *,
        cancels: bool = False,
    ) -> None:
        """Begin the wait.

        Args:
            submit: `JobService.submit`.
            position: where the events of each job are read from; None: only their ends are waited for.

        Raises TooManyWaiters, ShuttingDown.
        """
        self.jobs: list[Job] = []
        self._store = store
        self._waiters = waiters
        self._submit = submit
        self._caller = caller
        self._position = position
        self._cancels = cancels
        self._inbox: Inbox = queue.SimpleQueue()
        self._pending: dict[str, int] = {}  # jobs that have not ended, and their indexes in `jobs`
        self._own: set[str] = set()
        self._unstored: list[Job] = []
        self._wait_seconds = 0.0
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(waiters.admit_request())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def has_ended(self) -> bool:
        return not self._pending

    def submit(self, requests: Sequence[JobRequest]) -> None:
        """Admit the jobs, each under an idempotency key of its own. Raises what `JobService.submit` raises.

        A job that was made by an earlier request is waited for like one of this request, but never canceled.
        """
        key = self._caller.idempotency_key
        self._wait_seconds = requests[0].timeout_seconds + WAIT_GRACE_SECONDS
        for index, request in enumerate(requests):
            waiter = self._wait_for(new_job_id())
            key_of_job = key if key is None or index == 0 else f"{key} {index}"  # no key of a client has a space
            job = self._submit(request, self._caller.owner, key_of_job, waiter.job_id)
            if job.id != waiter.job_id:
                self.join(job)
                continue
            waiter.is_admitted = True
            self._own.add(job.id)
            if not request.stored:
                self._unstored.append(job)
            self._add(job)

    def join(self, job: Job) -> None:
        """Wait for a job that exists already."""
        self._add(job)
        if self._position is not None:
            self._store.follow(job.id)
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
        deadline = time.monotonic() + self._wait_seconds
        results = list(self.jobs)
        with self._waiters.disconnects.watching(self._caller.client_socket, self._client_gone):
            while not self.has_ended:
                item = self.next_end(deadline - time.monotonic())
                if item is not None:
                    index, job = item
                    raise_unless_succeeded(job.status, job.error)
                    results[index] = job
                elif time.monotonic() >= deadline:
                    self._cancels = False
                    raise WaitTimeout(
                        f"the job has not ended yet and continues; read it at {job_path(self.jobs[0].id)}"
                    )
        return results

    def close(self) -> None:
        """End the wait; further calls do nothing."""
        self._resources.close()
        if self._cancels and not self._waiters.is_shut_down:
            for job_id in self._pending.keys() & self._own:
                self._cancel(job_id)
        self._own.clear()
        while self._unstored:
            self._delete(self._unstored.pop())

    def _add(self, job: Job) -> None:
        self._pending[job.id] = len(self.jobs)
        self.jobs.append(job)

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
        if isinstance(item, Exception):
            raise item
        index = self._pending.get(job_id)
        if index is None:  # the end of a job may be read twice
            return None
        if isinstance(item, Job) or isinstance(item.event, End):
            del self._pending[job_id]
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


def raise_unless_succeeded(status: Status, job_error: JobError | None) -> None:
    """Raise the error that a job ended with, if any."""
    error = error_of(status, job_error)
    if error is not None:
        raise error


def error_of(status: Status, job_error: JobError | None) -> LLMAPIError | None:
    """Return what the end of a job means to a client that waits for it; None for success."""
    if status is Status.SUCCEEDED:
        return None
    if job_error is not None:
        return error_from_code(job_error.code, job_error.message, job_error.errors)
    if status is Status.CANCELED:
        return JobCanceled("the job was canceled before its end")
    if status is Status.EXPIRED:
        return JobExpired("the job waited too long for its turn; try again, or ask for a higher priority")
    return EngineFailed("the job failed, and its worker gave no reason")
