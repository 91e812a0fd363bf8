"""The waiting requests of this process: one thread reads its channel of notifications, and passes on what they carry.

A notification may be lost or late; the record of a job and its event stream are the truth. An event out of a
notification goes to the waiters that have read all events before it. Otherwise the thread reads Redis. It rereads for
all waiters after each (re)subscription and every `REREAD_SECONDS`.
"""

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence

import redis

from app.api.schemas.job import job_path
from app.api.waiting.disconnects import Disconnects
from app.errors import JobNotFound, NoWorker, ShuttingDown, TooManyWaiters
from app.jobs import keys
from app.jobs.events import EventEntry, read_events
from app.jobs.job import Job, Status
from app.jobs.notifications import Notification, notifications_in
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import JobStore
from app.jobs.worker_registry import why_none_will_come

READ_AT_ONCE = 256  # waiters per round trip when all are read again
REREAD_SECONDS = 3.0
POLL_SECONDS = 1.5  # below the client's own socket time-out, so that a silent connection raises nothing
RECONNECT_SECONDS = 0.5
RESTART_SECONDS = 5  # until this process is gone and another one serves

logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client closed its connection while it waited."""


Inbox = queue.SimpleQueue[tuple[str, Job | EventEntry | Exception]]
"""Job ids, and what has become of these jobs: an event, the final job, or why the wait is over."""


class Waiter:
    """A wait for one job. A request that waits for several jobs has several waiters with one inbox.

    Args:
        position: id of the last stream entry read; None for a wait for the final job, without its events.
    """

    __slots__ = ("inbox", "is_admitted", "job_id", "position")

    def __init__(self, job_id: str, position: str | None, inbox: Inbox) -> None:
        self.job_id = job_id
        self.position = position
        self.inbox = inbox
        self.is_admitted = False  # until then the job has no record

    def put(self, item: Job | EventEntry | Exception) -> None:
        self.inbox.put((self.job_id, item))


class Waiters:
    """The registry of all waiters of this process. Its threads start with the first request, after any fork."""

    def __init__(self, redis_url: str, client: RedisClient, store: JobStore, max_requests: int) -> None:
        """client: for reads of requests; the thread connects to `redis_url` by itself."""
        self.is_shut_down = False
        self.channel = ""  # of this process's notifications, once a request has been admitted
        self.disconnects = Disconnects()
        self._url = redis_url
        self._redis = client
        self._store = store
        self._max_requests = max_requests
        self._requests = 0
        self._waiting: dict[str, set[Waiter]] = {}
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # positions change under it
        self._is_started = False
        self._is_lost = False  # the subscription
        self._closing = threading.Event()

    def close(self) -> None:
        """Read no more notifications."""
        self._closing.set()

    def shut_down(self) -> None:
        """End all waits with the path under which the job can be read, and reject new requests."""
        with self._lock:
            self.is_shut_down = True
            for waiter in self._all():
                waiter.put(_shutting_down(waiter))

    @contextlib.contextmanager
    def admit_request(self) -> Iterator[None]:
        """Count one request, whatever the number of its jobs, while it waits. Raises TooManyWaiters, ShuttingDown."""
        with self._lock:
            if not self._is_started:
                self._is_started = True
                self.channel = keys.notifications(secrets.token_hex(8))
                self.disconnects.start()
                threading.Thread(target=self._run, name="subscriber", daemon=True).start()
            if self.is_shut_down:
                raise ShuttingDown(
                    "this server is shutting down; send the request again", retry_after_seconds=RESTART_SECONDS
                )
            if self._requests >= self._max_requests:
                raise TooManyWaiters(
                    f"{self._requests} requests wait here already; use /agenerate and poll, or try again",
                    retry_after_seconds=5,
                )
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    def add(self, waiter: Waiter) -> None:
        """From now on the waiter misses nothing of its job, which may not have been admitted yet."""
        with self._lock:
            self._waiting.setdefault(waiter.job_id, set()).add(waiter)
            if self.is_shut_down:  # since the request was admitted
                waiter.put(_shutting_down(waiter))

    def remove(self, waiter: Waiter) -> None:
        with self._lock:
            others = self._waiting[waiter.job_id]
            others.discard(waiter)
            if not others:
                del self._waiting[waiter.job_id]

    def read_now(self, waiter: Waiter) -> None:
        """Read what has become of an admitted job so far."""
        self._read([waiter], self._redis)

    def _all(self) -> list[Waiter]:
        return [waiter for waiters in self._waiting.values() for waiter in waiters]

    def _run(self) -> None:
        while not self._closing.is_set():
            client = connect(self._url, retries=0)
            try:
                self._listen(client)
            except redis.RedisError as error:
                if not self._is_lost and not self._closing.is_set():  # one line for each outage
                    name = type(error).__name__
                    logger.warning("lost the connection to Redis (%s); trying again until it is back", name)
                self._is_lost = True
            client.close()
            self._closing.wait(RECONNECT_SECONDS)

    def _listen(self, client: RedisClient) -> None:
        subscription = client.pubsub()
        try:
            subscription.subscribe(self.channel)
            subscription.get_message(timeout=POLL_SECONDS)
            reread_at = 0.0
            while not self._closing.is_set():
                if time.monotonic() >= reread_at:
                    self._read_all(client)
                    self._is_lost = False
                    reread_at = time.monotonic() + REREAD_SECONDS
                message = subscription.get_message(ignore_subscribe_messages=True, timeout=POLL_SECONDS)
                if message is not None:
                    self._deliver(message["data"], client)
        finally:
            subscription.close()

    def _deliver(self, message: str, client: RedisClient) -> None:
        """Pass on what the notifications of a message carry, and read what they do not."""
        behind: list[Waiter] = []
        for notification in notifications_in(message):
            with self._lock:
                waiters = list(self._waiting.get(notification.job_id, ()))
            if waiters:  # else the wait is over
                behind += self._deliver_one(notification, waiters)
        if behind:
            self._read(behind, client)

    def _deliver_one(self, notification: Notification, waiters: list[Waiter]) -> list[Waiter]:
        """Return the waiters that need more than the notification carries."""
        followers = [waiter for waiter in waiters if waiter.position is not None]
        ending = [waiter for waiter in waiters if waiter.position is None]
        job = notification.record() if ending else None
        if job is not None:
            for waiter in ending:
                waiter.put(job)
            return followers
        carried = notification.event()
        if carried is None:
            return waiters
        before, entry = carried
        with self._reading:
            up_to_date = [waiter for waiter in followers if waiter.position == before]
            for waiter in up_to_date:
                waiter.position = entry.id
                waiter.put(entry)
        return [waiter for waiter in followers if waiter not in up_to_date]

    def _read_all(self, client: RedisClient) -> None:
        with self._lock:
            waiters = self._all()
        why_stuck = why_none_will_come(client, self._store.model) if waiters else None
        for start in range(0, len(waiters), READ_AT_ONCE):
            self._read(waiters[start : start + READ_AT_ONCE], client, with_silent=True, why_stuck=why_stuck)

    def _read(
        self,
        waiters: Sequence[Waiter],
        client: RedisClient,
        *,
        with_silent: bool = False,
        why_stuck: str | None = None,
    ) -> None:
        """Read for some waiters, in one round trip for events and one for records.

        with_silent: also read the records of jobs that are followed: the stream of a deleted job is only silent.
        why_stuck: why no worker will claim the jobs that wait.
        """
        followers = [waiter for waiter in waiters if waiter.position is not None]
        if followers:
            self._read_events(followers, client)
        of_record = [(waiter, waiter.is_admitted) for waiter in waiters if with_silent or waiter.position is None]
        jobs = self._store.read_many((waiter.job_id for waiter, _ in of_record), client) if of_record else []
        for (waiter, was_admitted), job in zip(of_record, jobs, strict=True):
            if job is None:
                if was_admitted:
                    waiter.put(JobNotFound("the job was deleted while this request waited for it"))
            elif waiter.position is None and job.status.is_final:
                waiter.put(job)
            elif why_stuck is not None and job.status is Status.QUEUED and (job.not_before or 0.0) <= time.time():
                path = job_path(waiter.job_id)
                waiter.put(NoWorker(f"{why_stuck}; the job waits: read it at {path}", location=path))

    def _read_events(self, followers: Sequence[Waiter], client: RedisClient) -> None:
        with self._reading:
            positions = [(waiter.job_id, waiter.position or "") for waiter in followers]
            for waiter, entries in zip(followers, read_events(client, positions), strict=True):
                for entry in entries:
                    waiter.position = entry.id
                    waiter.put(entry)


def _shutting_down(waiter: Waiter) -> ShuttingDown:
    path, how = job_path(waiter.job_id), "read it at"
    if waiter.position is not None:
        path, how = f"{path}/events", "follow it, with the id of your last event as Last-Event-ID, at"
    detail = f"this server is shutting down, and the job continues: {how} {path}"
    return ShuttingDown(detail, retry_after_seconds=RESTART_SECONDS, location=path)
