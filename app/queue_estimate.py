"""How fast the queue moves: when a refused request should come back, and when a waiting job should start."""

import logging
import math
import threading
import time
from dataclasses import dataclass

import redis

from app.contract import keys
from app.contract.redis_client import RedisClient
from app.contract.worker_registry import WorkerState, read_workers

FRESH_SECONDS = 1.0  # a reading serves the process so long: a burst of refusals costs one
DEFAULT_SERVICE_SECONDS = 1.0  # of a job, as long as no job has been measured
WORKER_START_SECONDS = 5  # where nobody serves now, nobody will earlier
MAX_RETRY_SECONDS = 120  # the queue may be short by then: whoever waits longer finds a server that has nothing to do

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Of one model's ready workers. slots: jobs at once. service_seconds: a job's mean, None = not measured."""

    slots: int = 0
    service_seconds: float | None = None


class QueueEstimate:
    """One per process."""

    def __init__(self, client: RedisClient, *, model: str) -> None:
        self._redis = client
        self._model = model
        self._lock = threading.Lock()
        self._capacity = Capacity()
        self._fresh_until = 0.0  # time.monotonic()

    def retry_after_seconds(self, waiting: int) -> int:
        """Whole seconds until `waiting` jobs should have started: 1 to `MAX_RETRY_SECONDS`."""
        capacity = self._read_lately()
        mean_seconds = DEFAULT_SERVICE_SECONDS if capacity.service_seconds is None else capacity.service_seconds
        seconds = math.ceil(waiting * mean_seconds / max(1, capacity.slots))
        fewest = 1 if capacity.slots else WORKER_START_SECONDS
        return min(MAX_RETRY_SECONDS, max(fewest, seconds))

    def _read_lately(self) -> Capacity:
        with self._lock:  # others wait for the one that reads
            if time.monotonic() >= self._fresh_until:
                self._capacity = self._read()
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._capacity

    def _read(self) -> Capacity:
        try:
            workers = read_workers(self._redis)
            service_seconds = self._redis.get(keys.service_time(self._model))
        except redis.RedisError as error:
            logger.warning("nothing known of the queue's pace: %s", type(error).__name__)
            return Capacity()
        ready = [info for info in workers if info.model == self._model and info.state is WorkerState.READY]
        return Capacity(
            slots=sum(info.slots for info in ready),
            service_seconds=None if service_seconds is None else float(service_seconds),
        )
