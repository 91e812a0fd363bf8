"""Submits jobs, waits for them, follows and reads them.

The routes use it, and the batch driver outside of any request: owner, idempotency key and socket are arguments.
"""

import contextlib
import logging
import queue
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import redis

from app.api.queue_estimate import QueueEstimate
from app.api.request_parser import invalid_request
from app.api.schemas.job import JOB_ID, JobOptions, JobSchema, JobView, job_path
from app.api.waiting.waiters import ClientGone, Inbox, Waiter, Waiters
from app.api.webhooks.post import reject_unsendable
from app.config.settings import Config
from app.errors import (
    EngineFailed,
    JobCanceled,
    JobExpired,
    JobNotFound,
    LLMAPIError,
    NotAdmitted,
    ShuttingDown,
    WaitTimeout,
    error_from_code,
)
from app.jobs.events import FROM_START, End, EventEntry, read_events
from app.jobs.job import Job, JobError, JobRequest, Kind, OnDisconnect, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore, new_job_id

WAIT_GRACE_SECONDS = 30.0  # beyond the time of the job itself: for its wait in the queue, and its last events
_JOB_SCHEMA = JobSchema()

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


class JobService:
    """The jobs of one model's service: how callers make them, wait for them and read them."""

    def __init__(
        self, config: Config, client: RedisClient, store: JobStore, waiters: Waiters, estimate: QueueEstimate
    ) -> None:
        self.config = config
        self.store = store
        self.waiters = waiters
        self.estimate = estimate
        self._redis = client

    def make_request(self, kind: Kind, options: JobOptions, **content: Any) -> JobRequest:
        """Return the request of a job.

        Args:
            options: how the job is run. Its time is limited by `jobs.timeout`.
            content: the other fields of `JobRequest`.

        Raises:
            InvalidRequest: the webhook cannot be sent.
        """
        if options.webhook is not None:
            reject_unsendable(options.webhook, self.config.webhooks)
        longest = float(self.config.jobs.timeout)
        return JobRequest(
            kind=kind,
            priority=options.priority,
            timeout_seconds=longest if options.timeout is None else min(options.timeout, longest),
            expires_in_seconds=options.expires_in,
            ttl_seconds=options.ttl,
            webhook=options.webhook,
            **content,
        )

    def submit(self, request: JobRequest, owner: str, key: str | None = None, job_id: str | None = None) -> Job:
        """Admit a job, without waiting for it.

        Args:
            key: the idempotency key, None without one.
            job_id: the id that a new job gets, from `new_job_id`; None: a new one.

        Returns:
            The job. If the key was used before, this is that earlier job; its id differs from `job_id`.

        Raises:
            QueueFull, NoWorker: with `retry_after_seconds`.
            Conflict: the key has been used for another request.
        """
        try:
            return self.store.admit(request, owner, job_id, idempotency_key=key)
        except NotAdmitted as error:
            error.retry_after_seconds = self.estimate.retry_after_seconds(error.waiting)
            raise

    def begin_waiting(self, caller: Caller, on_disconnect: OnDisconnect | None, *, with_events: bool) -> "PendingJobs":
        """Begin a request that waits for the jobs it is going to submit.

        Args:
            on_disconnect: None cancels the jobs of a client that leaves, unless it can return with its idempotency key.
            with_events: wait for all events of the jobs, not only for their ends.

        Raises:
            TooManyWaiters, ShuttingDown
        """
        cancels = caller.idempotency_key is None if on_disconnect is None else on_disconnect is OnDisconnect.CANCEL
        return PendingJobs(self, caller, FROM_START if with_events else None, cancels=cancels)

    def follow(self, job: Job, after: str = FROM_START) -> "PendingJobs | PastEvents":
        """Begin to wait for the events of an existing job that come after the event `after`.

        Raises TooManyWaiters, ShuttingDown.
        """
        if job.status.is_final:
            (entries,) = read_events(self._redis, [(job.id, after)])
            return PastEvents(job, entries)
        with contextlib.ExitStack() as resources:
            pending = resources.enter_context(PendingJobs(self, Caller(owner=job.owner), after))
            pending.join(job)
            resources.pop_all()
        return pending

    def wait(self, job: Job, seconds: float) -> Job:
        """Return the job once it has ended; as it is after `seconds`, or when this process shuts down.

        Raises JobNotFound, TooManyWaiters.
        """
        with contextlib.suppress(ShuttingDown), PendingJobs(self, Caller(owner=job.owner), None) as pending:
            pending.join(job)
            item = pending.next_end(seconds)
            if item is not None:
                return item[1]
        return self.store.read(job.id)

    def read(self, job_id: str, owner: str) -> Job:
        """Return a job of this owner. Raises InvalidRequest if `job_id` cannot be an id, else JobNotFound."""
        if not JOB_ID.fullmatch(job_id):
            raise invalid_request({"job_id": ["Must be a job id: a UUID such as POST /agenerate returns."]})
        job = self.store.read(job_id.lower())
        if job.owner != owner:
            raise JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
        return job

    def cancel(self, job: Job) -> Job:
        """Cancel a job, and return it as it is then: a worker ends a running one within a step. Raises JobNotFound."""
        self.store.cancel(job.id)
        return self.store.read(job.id)

    def document(self, job: Job) -> Mapping[str, Any]:
        """Return the job object of the HTTP API."""
        return self.documents([job])[0]

    def documents(self, jobs: Sequence[Job]) -> list[Mapping[str, Any]]:
        """Return the job objects of several jobs; their queue positions cost one round trip."""
        positions = self.store.queue_positions(jobs)
        starts = self.estimate.start_times(jobs, positions)
        return [_JOB_SCHEMA.dump(JobView(*shown)) for shown in zip(jobs, positions, starts, strict=True)]


class PendingJobs:
    """The jobs that one request waits for, in the order of its response. A context manager; `close` ends the wait.

    At the end of the wait, the jobs that the request has made and that have not ended are canceled, if it `cancels` and
    this process is not shutting down.
    """

    def __init__(self, service: JobService, caller: Caller, position: str | None, *, cancels: bool = False) -> None:
        """position: where the events of each job are read from; None: only their ends are waited for."""
        self.jobs: list[Job] = []
        self._service = service
        self._caller = caller
        self._position = position
        self._cancels = cancels
        self._inbox: Inbox = queue.SimpleQueue()
        self._pending: dict[str, int] = {}  # jobs that have not ended, and their indexes in `jobs`
        self._own: set[str] = set()
        self._wait_seconds = 0.0
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(service.waiters.admit_request())

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
            job = self._service.submit(request, self._caller.owner, key_of_job, waiter.job_id)
            if job.id != waiter.job_id:
                self.join(job)
                continue
            waiter.is_admitted = True
            self._own.add(job.id)
            self._add(job)

    def join(self, job: Job) -> None:
        """Wait for a job that exists already."""
        self._add(job)
        if self._position is not None:
            self._service.store.follow(job.id)
        waiter = self._wait_for(job.id)
        waiter.is_admitted = True
        self._service.waiters.read_now(waiter)

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
        with self._service.waiters.disconnects.watching(self._caller.client_socket, self._client_gone):
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
        if self._cancels and not self._service.waiters.is_shut_down:
            for job_id in self._pending.keys() & self._own:
                self._cancel(job_id)
        self._own.clear()

    def _add(self, job: Job) -> None:
        self._pending[job.id] = len(self.jobs)
        self.jobs.append(job)

    def _wait_for(self, job_id: str) -> Waiter:
        waiters = self._service.waiters
        waiter = Waiter(job_id, self._position, self._inbox)
        waiters.add(waiter)
        self._resources.callback(waiters.remove, waiter)
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
            self._service.store.cancel(job_id)
        except JobNotFound:
            pass
        except redis.RedisError as error:
            logger.warning("job %s continues although its client has left: %s", job_id, type(error).__name__)


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
