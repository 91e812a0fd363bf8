"""The live views of one process: each waits for the next state that its page should show."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import redis

from app.api.batches.batches import BatchStore
from app.api.batches.paging import Cut
from app.api.live import queue, workers
from app.api.live.feed import Feed
from app.api.live.queue import QueueReader, QueueReading, Viewer
from app.api.queue_estimate import QueueEstimate
from app.config.hours import Hours
from app.jobs.queue_positions import QueuePositions
from app.jobs.redis_client import RedisClient

BATCHES = 20  # the newest ones
BATCHES_SECONDS = 2.0  # between two readings of an owner's batches

State = Mapping[str, Any]
Next = tuple[int, State | redis.RedisError]


class LiveViews:
    """The views of the model's queue and of its workers. Each call waits for a reading newer than number `after`."""

    def __init__(
        self,
        client: RedisClient,
        model: str,
        estimate: QueueEstimate,
        batches: BatchStore,
        hours: Hours | None,
        positions: QueuePositions,
    ) -> None:
        """hours: in which lines of batches are submitted; None: always."""
        self._queue: Feed[QueueReading] = Feed(QueueReader(client, model, estimate, positions))
        self.has_ended = False
        self._batches = OwnBatches(batches, hours)
        queue_of_workers = QueueReader(client, model, estimate, positions)
        self._workers: Feed[State] = Feed(
            lambda: workers.show(workers.read_model_workers(client, model), queue_of_workers())
        )

    def end(self) -> None:
        """Let the streams end: a page connects to another process, or to this one after its restart."""
        self.has_ended = True

    def queue(self, after: int, viewer: Viewer) -> Next:
        """Return the number of the reading and the sections that `viewer` sees, its batches among them."""
        number, reading = self._queue.next(after)
        if isinstance(reading, redis.RedisError):
            return number, reading
        try:
            return number, {**queue.show(reading, viewer), "batches": self._batches.of(viewer.owner)}
        except redis.RedisError as error:
            return number, error

    def workers(self, after: int) -> Next:
        return self._workers.next(after)


class OwnBatches:
    """The newest batches of each owner that watches, read at most every `BATCHES_SECONDS`."""

    def __init__(self, store: BatchStore, hours: Hours | None) -> None:
        self._store = store
        self._hours = hours
        self._lock = threading.Lock()
        self._readings: dict[str, tuple[float, list[State]]] = {}  # by owner, with the time.monotonic() of the reading

    def of(self, owner: str) -> list[State]:
        """Raises redis.RedisError."""
        now = time.monotonic()
        with self._lock:
            self._readings = {who: held for who, held in self._readings.items() if now - held[0] < BATCHES_SECONDS}
            held = self._readings.get(owner)
        if held is not None:
            return held[1]
        batches, _ = self._store.list_batches(owner, Cut(limit=BATCHES))
        shown: list[State] = [batch.document(self._hours) for batch in batches]
        with self._lock:
            self._readings[owner] = now, shown
        return shown
