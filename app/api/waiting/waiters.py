"""Everybody in this process who waits for a job: one thread hears the hints and reads the news for all of them.

A hint (pub/sub, `app.api.waiting.subscriber`) may be lost or come late: the job record and the event stream
are what counts. An event that a hint carries is told to who has read all that came before it; everything else is read.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Collection, Iterable, Iterator

from app.api.schemas.job import job_path
from app.api.waiting.disconnects import Disconnects
from app.api.waiting.subscriber import Subscriber
from app.errors import JobNotFound, ShuttingDown, TooManyWaiters
from app.jobs.events import FROM_START, Event, EventType, read_events
from app.jobs.job import Job
from app.jobs.notifications import Notification, notifications_in
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore

READ_AT_ONCE = 256  # waiters per round trip when all are read again
RESTART_SECONDS = 5  # until a process that stops is gone and another one answers


class ClientGone(Exception):
    """The client closed its connection while it waited."""


class Waiter:
    """A request that waits for one job. The reader thread tells it what it reads.

    news: where it is told, with its own name: those of one request may share it.
    """

    __slots__ = ("is_admitted", "job_id", "news", "position", "sockets")

    def __init__(self, job_id: str, position: str | None, sockets: Disconnects, news: "News | None" = None) -> None:
        self.job_id = job_id
        self.is_admitted = False  # before that, it is no news that there is no record
        self.position = position  # id of the last event read; None: waits for the record's end, not for events
        self.news: News = queue.SimpleQueue() if news is None else news
        self.sockets = sockets

    def tell(self, found: Job | Event | Exception) -> None:
        self.news.put((self, found))

    def end(self, timeout_seconds: float, client_socket: socket.socket | None = None) -> Job | None:
        """The final job, or None when the time is over. Call it once the job is admitted.

        Raises ClientGone, JobNotFound, ShuttingDown.
        """
        self.is_admitted = True
        with self.sockets.watching(client_socket, lambda: self.tell(ClientGone())):
            found = self._next(timeout_seconds)
        assert not isinstance(found, Event)
        return found

    def events(self, heartbeat_seconds: float) -> Iterator[Event | None]:
        """Events until the job's `end`; None after every silent `heartbeat_seconds`. Raises JobNotFound, ShuttingDown.

        Call it once the job is admitted.
        """
        self.is_admitted = True
        while True:
            found = self._next(heartbeat_seconds)
            assert not isinstance(found, Job)
            yield found
            if found is not None and found.type is EventType.END:
                return

    def _next(self, timeout_seconds: float) -> Job | Event | None:
        try:
            _, found = self.news.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found


News = queue.SimpleQueue[tuple[Waiter, Job | Event | Exception]]


class Waiters:
    """Waits for jobs on behalf of this process's requests. Its thread starts with the first waiter, after any fork."""

    def __init__(self, redis_url: str, client: RedisClient, store: JobStore, max_waiters: int) -> None:
        """client: what requests read with; the thread that hears the hints connects to `redis_url` by itself."""
        self._redis = client
        self._store = store
        self._max_waiters = max_waiters
        self._waiting: dict[str, set[Waiter]] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # a follower's position moves under it
        self.is_shut_down = False
        self.sockets = Disconnects()
        self._hints = Subscriber(redis_url, take=self._take, reread=self._read_all)

    def close(self) -> None:
        """Hear no more hints. Whoever still waits hears of nothing."""
        self._hints.close()

    def shut_down(self) -> None:
        """This process ends: tell whoever waits where the job goes on, and whoever comes to come again elsewhere."""
        with self._lock:
            self.is_shut_down = True
            waiting = self._everybody()
        for waiter in waiting:
            waiter.tell(_goes_on(waiter))

    @contextlib.contextmanager
    def expect(self, job_id: str, position: str | None = None) -> Iterator[Waiter]:
        """A waiter for a job that is about to be admitted: nothing that happens to it from now on is missed.

        Raises TooManyWaiters, ShuttingDown.
        """
        with self.place():
            waiter = Waiter(job_id, position, self.sockets)
            self.enter(waiter)
            try:
                yield waiter
            finally:
                self.leave(waiter)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Room for one request that waits, for as many jobs as it likes. Raises TooManyWaiters, ShuttingDown."""
        self._hints.start()
        with self._lock:
            if self.is_shut_down:
                raise ShuttingDown(
                    "this server is shutting down; send the request again", retry_after_seconds=RESTART_SECONDS
                )
            if self._count >= self._max_waiters:
                raise TooManyWaiters(
                    f"{self._count} requests wait here already; use /agenerate and poll, or try again",
                    retry_after_seconds=5,
                )
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def enter(self, waiter: Waiter) -> None:
        """From now on it is told what happens to its job; `leave` ends that."""
        with self._lock:
            self._waiting.setdefault(waiter.job_id, set()).add(waiter)
            if self.is_shut_down:  # since it has its place
                waiter.tell(_goes_on(waiter))

    def leave(self, waiter: Waiter) -> None:
        with self._lock:
            others = self._waiting[waiter.job_id]
            others.discard(waiter)
            if not others:
                del self._waiting[waiter.job_id]

    def read_now(self, waiter: Waiter) -> None:
        """Tell it what has happened so far."""
        self._read([waiter], self._redis)

    def wait(self, job_id: str, timeout_seconds: float, *, client_socket: socket.socket | None = None) -> Job | None:
        """The job once it is final, or None when `timeout_seconds` have passed.

        Raises JobNotFound, ClientGone (the peer of `client_socket` has left), TooManyWaiters, ShuttingDown.
        """
        with self.expect(job_id) as waiter:
            job = self._store.read(job_id)
            return job if job.status.is_final else waiter.end(timeout_seconds, client_socket)

    def follow(
        self, job_id: str, after: str = FROM_START, *, heartbeat_seconds: float = 10.0
    ) -> Iterator[Event | None]:
        """The job's events after the event `after`; see `Waiter.events`. Raises what that and `expect` raise."""
        with self.expect(job_id, after) as waiter:
            self.read_now(waiter)
            yield from waiter.events(heartbeat_seconds)

    def _take(self, hint: str, client: RedisClient) -> None:
        """Tell those who wait for the jobs of a hint what it carries, and read for them what it does not."""
        unread: list[Waiter] = []
        for told in notifications_in(hint):
            with self._lock:
                waiters = list(self._waiting.get(told.job_id, ()))
            if waiters:  # most hints are for other processes
                unread += self._tell(told, waiters)
        if unread:
            self._read(unread, client)

    def _tell(self, told: Notification, waiters: Collection[Waiter]) -> Iterable[Waiter]:
        """Returns whom it is to be read for: those who wait for more than it carries."""
        found = told.event()
        if found is not None:
            return self._tell_event(*found, [waiter for waiter in waiters if waiter.position is not None])
        job = told.record()
        if job is None:
            return waiters
        for waiter in waiters:
            if waiter.position is None:
                waiter.tell(job)
        return [waiter for waiter in waiters if waiter.position is not None]

    def _tell_event(self, after: str, event: Event, followers: Iterable[Waiter]) -> Iterable[Waiter]:
        """Only who has read all that came before it can take it."""
        with self._reading:
            others = []
            for waiter in followers:
                if waiter.position == after:
                    waiter.position = event.id
                    waiter.tell(event)
                else:
                    others.append(waiter)
            return others

    def _everybody(self) -> list[Waiter]:
        return [waiter for waiters in self._waiting.values() for waiter in waiters]

    def _read_all(self, client: RedisClient) -> None:
        with self._lock:
            everybody = self._everybody()
        for start in range(0, len(everybody), READ_AT_ONCE):
            some = everybody[start : start + READ_AT_ONCE]
            self._read(some, client)
            self._tell_deleted([waiter for waiter in some if waiter.position is not None], client)

    def _read(self, waiters: Collection[Waiter], client: RedisClient) -> None:
        """Read the news of some waiters, in one round trip per kind, and hand them out."""
        ending = [(waiter, waiter.is_admitted) for waiter in waiters if waiter.position is None]
        if ending:
            jobs = self._store.read_many((waiter.job_id for waiter, _ in ending), client)
            for (waiter, was_admitted), job in zip(ending, jobs, strict=True):
                if job is None:
                    if was_admitted:
                        waiter.tell(JobNotFound("the job was deleted while it was waited for"))
                elif job.status.is_final:
                    waiter.tell(job)
        if len(ending) < len(waiters):
            self._read_events([waiter for waiter in waiters if waiter.position is not None], client)

    def _tell_deleted(self, followers: list[Waiter], client: RedisClient) -> None:
        """A deleted job's stream is silent for ever; only its missing record tells."""
        admitted = [waiter for waiter in followers if waiter.is_admitted]
        jobs = self._store.read_many((waiter.job_id for waiter in admitted), client) if admitted else []
        for waiter, job in zip(admitted, jobs, strict=True):
            if job is None:
                waiter.tell(JobNotFound("the job was deleted while it was followed"))

    def _read_events(self, followers: list[Waiter], client: RedisClient) -> None:
        with self._reading:
            positions = [(waiter.job_id, waiter.position or FROM_START) for waiter in followers]
            for waiter, events in zip(followers, read_events(client, positions), strict=True):
                for event in events:
                    waiter.position = event.id
                    waiter.tell(event)


def _goes_on(waiter: Waiter) -> ShuttingDown:
    """What somebody who waits hears from a process that ends."""
    path, how = job_path(waiter.job_id), "read it at"
    if waiter.position is not None:
        path, how = f"{path}/events", "follow it, with the id of your last event as Last-Event-ID, at"
    detail = f"this server is shutting down, and the job goes on: {how} {path}"
    return ShuttingDown(detail, retry_after_seconds=RESTART_SECONDS, location=path)
