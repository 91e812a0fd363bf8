"""Watches whether Redis responds, so that no request has to wait to find out.

A Redis that was killed rejects connections at once. One that is stopped, or behind a broken network, is silent: every
command waits for its time-out. One thread per process pings Redis, and while it gets no reply, commands of the
process's requests raise `RedisAway` at once.
"""

import logging
import threading
import time
from typing import Any

import redis

from app.api.metrics.process import count_ping
from app.jobs.redis_client import RedisClient, connect

PING_SECONDS = 0.5
IDLE_PING_SECONDS = 2.0  # while no command is sent; the next one starts a ping at once
PING_AGAIN_SECONDS = 0.1  # after a ping without a reply
REPLY_SECONDS = 1.0
# One lost ping may be a lost connection, or a fork or an fsync that delayed Redis. A process that was delayed itself
# finds the reply in its socket, however late it reads.
SILENT_PINGS = 2

logger = logging.getLogger(__name__)


class RedisAway(redis.ConnectionError):
    """Redis has not replied to the last pings. Raised without asking it; the watch logs it once for all requests."""


class RedisHealth:
    """`is_away`: Redis has not replied to the last `SILENT_PINGS` pings. False until `start`."""

    def __init__(self, redis_url: str) -> None:
        self.is_away = False
        self._url = redis_url
        self._silent_pings = 0
        self._closing = threading.Event()
        self._asked = threading.Event()  # a command was sent since the last ping

    def client(self) -> RedisClient:
        """Return a client for requests, whose commands raise RedisAway at once while Redis is away."""
        return connect(self._url, pool=_WatchedPool, watch=self)

    def start(self) -> None:
        """Start the thread. Call it once in a process, after any fork."""
        threading.Thread(target=self._run, name="redis-watch", daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._asked.set()

    def note_command(self) -> None:
        """A command is about to be sent. Raises RedisAway."""
        self.raise_if_away()
        if not self._asked.is_set():
            self._asked.set()

    def raise_if_away(self) -> None:
        if self.is_away:
            raise RedisAway("no answer to the last pings")

    def _run(self) -> None:
        client = connect(self._url, reply_seconds=REPLY_SECONDS, retries=0)
        while not self._is_closing_at_next_ping():
            began_at = time.perf_counter()
            try:
                client.ping()
            except redis.RedisError as error:
                self._note(error)
            else:
                self._note(None)
                count_ping(time.perf_counter() - began_at)
        client.close()

    def _is_closing_at_next_ping(self) -> bool:
        """Wait until a ping is due."""
        if self._silent_pings:
            return self._closing.wait(PING_AGAIN_SECONDS)
        if self._asked.is_set():
            self._asked.clear()
            return self._closing.wait(PING_SECONDS)
        self._asked.wait(IDLE_PING_SECONDS)
        return self._closing.is_set()

    def _note(self, error: redis.RedisError | None) -> None:
        """Note the outcome of a ping. An error that Redis sent, for example that it is loading, is a reply too."""
        if error is None or isinstance(error, redis.ResponseError) or error.status_code is not None:
            if self.is_away:
                logger.warning("Redis answers again")
            self.is_away, self._silent_pings = False, 0
            return
        self._silent_pings += 1
        if self._silent_pings == SILENT_PINGS:
            logger.warning("Redis does not answer (%s): requests get 503 until it does", type(error).__name__)
            self.is_away = True


class _WatchedPool(redis.BlockingConnectionPool):
    """Every command of a request takes its connection here."""

    def __init__(self, *, watch: RedisHealth, **options: Any) -> None:
        self._watch = watch
        super().__init__(redis_connect_func=self._on_connect, **options)  # type: ignore[no-untyped-call]

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        self._watch.note_command()
        connection = super().get_connection()  # type: ignore[no-untyped-call]
        if self._watch.is_away:  # since this thread began to wait for a connection
            self.release(connection)  # type: ignore[no-untyped-call]
            self._watch.raise_if_away()
        return connection

    def _on_connect(self, connection: Any) -> None:
        """Also prevents the second attempt of a command whose first one got no reply."""
        self._watch.raise_if_away()
        connection.on_connect()
