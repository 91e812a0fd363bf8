"""Hears the hints of all workers: one subscription per process, made again whenever it is lost.

Subscriber can be lost, so everything waited for is read again when the subscription stands and every `REREAD_SECONDS`.
"""

import logging
import threading
import time
from collections.abc import Callable

import redis

from app.jobs import keys
from app.jobs.redis_client import RedisClient, connect

REREAD_SECONDS = 3.0
POLL_SECONDS = 1.0  # below the client's own socket time-out, so that a silent connection raises nothing
RECONNECT_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Subscriber:
    """Calls `take` for every hint and `reread` when some may be lost, in a thread and with a client of its own."""

    def __init__(
        self, redis_url: str, *, take: Callable[[str, RedisClient], None], reread: Callable[[RedisClient], None]
    ) -> None:
        self._url = redis_url
        self._take = take
        self._reread = reread
        self._lock = threading.Lock()
        self._started = False
        self._closing = threading.Event()
        self._lost = False

    def start(self) -> None:
        """Once; further calls do nothing. Call it after any fork."""
        if self._started:
            return
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="hints", daemon=True).start()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            client = connect(self._url, retries=0)
            try:
                self._hear(client)
            except redis.RedisError as error:
                self._say_lost(error)
            client.close()
            self._closing.wait(RECONNECT_SECONDS)

    def _hear(self, client: RedisClient) -> None:
        hints = client.pubsub()
        try:
            hints.subscribe(keys.NOTIFICATIONS_CHANNEL)
            hints.get_message(timeout=POLL_SECONDS)
            reread_at = 0.0  # at once: what came before the subscription was not heard
            while not self._closing.is_set():
                if time.monotonic() >= reread_at:
                    self._reread(client)
                    self._lost = False
                    reread_at = time.monotonic() + REREAD_SECONDS
                message = hints.get_message(ignore_subscribe_messages=True, timeout=POLL_SECONDS)
                if message is not None:
                    self._take(message["data"], client)
        finally:
            hints.close()

    def _say_lost(self, error: redis.RedisError) -> None:
        """One line for each outage."""
        if not self._lost and not self._closing.is_set():
            logger.warning("lost the connection to Redis (%s); trying again until it is back", type(error).__name__)
        self._lost = True
