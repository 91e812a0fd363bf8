"""One answer, several jobs: each choice is a job of its own, and one request waits for all of them."""

import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import redis

from app.api import dispatch
from app.api.idempotency import idempotency_key
from app.api.services import services
from app.api.waiting.waiters import ClientGone, News, Waiter, Waiters
from app.errors import JobNotFound, WaitTimeout
from app.jobs.events import FROM_START, Event, EventType
from app.jobs.job import Job, JobRequest, OnDisconnect
from app.jobs.sampling import MAX_SEED
from app.jobs.store import JobStore, new_job_id

logger = logging.getLogger(__name__)


class Choices:
    """The jobs of one answer, in the order of its choices. `close` cancels those that have not ended, where they are
    this request's own and it `cancels`; in a process that ends they go on.
    """

    def __init__(self, waiters: Waiters, store: JobStore, *, position: str | None, cancels: bool) -> None:
        self.jobs: list[Job] = []
        self._waiters = waiters
        self._store = store
        self._position = position
        self._cancels = cancels
        self._news: News = queue.SimpleQueue()
        self._entered: list[Waiter] = []
        self._open: dict[str, int] = {}  # jobs that have not ended, and the choices they are
        self._own: set[str] = set()

    @property
    def has_ended(self) -> bool:
        return not self._open

    def admit(self, request: JobRequest, key: str | None) -> None:
        """Make the job of the next choice, or find the one that an earlier request has made. Raises what
        `dispatch.admit` raises.
        """
        waiter = self._enter(new_job_id())
        job = dispatch.admit_one_of(request, waiter.job_id, key, is_first=not self.jobs)
        waiter.is_admitted = True
        if job.id == waiter.job_id:
            self._own.add(job.id)
        else:
            self._follow_earlier(job.id)
        self._open[job.id] = len(self.jobs)
        self.jobs.append(job)

    def next(self, timeout_seconds: float) -> tuple[int, Job | Event] | None:
        """The next news and whose it is; None when nothing happened in that time. Raises JobNotFound, ClientGone."""
        try:
            waiter, found = self._news.get(timeout=max(0.0, timeout_seconds))
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        index = self._open.get(waiter.job_id)
        if index is None:  # told twice
            return None
        if isinstance(found, Job) or found.type is EventType.END:
            del self._open[waiter.job_id]
        return index, found

    def ends(self, timeout_seconds: float) -> list[Job]:
        """All jobs, final. Raises the first error that one of them ended with, ClientGone, WaitTimeout."""
        deadline = time.monotonic() + timeout_seconds
        final = list(self.jobs)
        with self._waiters.sockets.watching(dispatch.client_socket(), self._client_left):
            while not self.has_ended:
                if time.monotonic() > deadline:
                    self._cancels = False  # they go on
                    raise WaitTimeout(f"the jobs have not ended yet; read the first at /jobs/{self.jobs[0].id}")
                news = self.next(deadline - time.monotonic())
                if news is not None:
                    index, job = news
                    assert isinstance(job, Job)
                    dispatch.raise_unless_succeeded(job.status, job.error)
                    final[index] = job
        return final

    def close(self) -> None:
        for waiter in self._entered:
            self._waiters.leave(waiter)
        if self._cancels and not self._waiters.is_shut_down:
            for job_id in self._open.keys() & self._own:
                _cancel(self._store, job_id)

    def _enter(self, job_id: str) -> Waiter:
        waiter = Waiter(job_id, self._position, self._waiters.sockets, self._news)
        self._waiters.enter(waiter)
        self._entered.append(waiter)
        return waiter

    def _follow_earlier(self, job_id: str) -> None:
        if self._position is not None:
            self._store.follow(job_id)
        waiter = self._enter(job_id)
        waiter.is_admitted = True
        self._waiters.read_now(waiter)

    def _client_left(self) -> None:
        self._entered[0].tell(ClientGone())


@contextlib.contextmanager
def admitted(requests: Sequence[JobRequest], on_disconnect: OnDisconnect | None, *, stream: bool) -> Iterator[Choices]:
    """The jobs of an answer. Raises what `dispatch.admit` raises, TooManyWaiters."""
    found = services()
    choices = Choices(
        found.waiters,
        found.store,
        position=FROM_START if stream else None,
        cancels=dispatch.cancels_when_left(on_disconnect),
    )
    with found.waiters.place(), contextlib.closing(choices):
        key = idempotency_key()
        for index, request in enumerate(requests):
            choices.admit(request, key if key is None or index == 0 else f"{key} {index}")  # no client's has a space
        yield choices


def copies(request: JobRequest, count: int) -> list[JobRequest]:
    """The same request so many times. With a seed each gets one of its own, or all answers would be the same."""
    seed = request.params.get("seed")
    if seed is None:
        return [request] * count
    seeds = [(seed + index) % (MAX_SEED + 1) for index in range(count)]
    return [replace(request, params={**request.params, "seed": each}) for each in seeds]


def run(requests: Sequence[JobRequest], on_disconnect: OnDisconnect | None) -> list[Job]:
    """Admit the jobs of an answer and wait until all have succeeded. Raises what `dispatch.run` raises."""
    seconds = requests[0].timeout_seconds + dispatch.WAIT_GRACE_SECONDS
    with admitted(requests, on_disconnect, stream=False) as choices:
        jobs = choices.ends(seconds)
    dispatch.tell_cached(jobs)
    return jobs


def _cancel(store: JobStore, job_id: str) -> None:
    try:
        store.cancel(job_id)
    except JobNotFound:
        pass
    except redis.RedisError as error:
        logger.warning("job %s goes on although its client has left: %s", job_id, type(error).__name__)
