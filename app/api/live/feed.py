"""A reading that many streams share."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import redis

PERIOD_SECONDS = 0.8  # so that a change is seen within a second

T = TypeVar("T")


class Feed(Generic[T]):
    """Reads once per `PERIOD_SECONDS` while there are streams that wait, in the thread of one of them."""

    def __init__(self, read: Callable[[], T]) -> None:
        """read: may raise redis.RedisError."""
        self._read = read
        self._changed = threading.Condition()
        self._version = 0
        self._outcome: T | redis.RedisError | None = None
        self._due = 0.0
        self._is_reading = False

    def next(self, after: int) -> tuple[int, T | redis.RedisError]:
        """Wait for a reading newer than the one numbered `after`; return its number and the reading, or its error."""
        with self._changed:
            while True:
                seconds = self._due - time.monotonic()
                if seconds > 0 and self._version > after:  # an older one was left by streams that are gone
                    assert self._outcome is not None, "a version has an outcome"
                    return self._version, self._outcome
                if seconds <= 0 and not self._is_reading:
                    self._is_reading = True
                    break
                self._changed.wait(seconds if seconds > 0 else PERIOD_SECONDS)
        return self._lead()

    def _lead(self) -> tuple[int, T | redis.RedisError]:
        started = time.monotonic()
        outcome: T | redis.RedisError | None = None
        try:
            outcome = self._read()
        except redis.RedisError as error:
            outcome = error
        finally:
            with self._changed:
                self._is_reading = False
                self._due = started + PERIOD_SECONDS
                if outcome is not None:
                    self._version += 1
                    self._outcome = outcome
                version = self._version
                self._changed.notify_all()
        return version, outcome
