"""Estimates how fast the queue moves: when to retry a rejected request, and when a waiting job should start."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from app.jobs import keys
from app.jobs.job import Job
from app.jobs.queue_positions import QueuePosition
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerState, read_workers

FRESH_SECONDS = 1.0  # how long one reading is used: a burst of rejections costs one reading
DEFAULT_SERVICE_SECONDS = 1.0  # of a job, until the first one has ended
WORKER_START_SECONDS = 5  # while no worker is ready, none is sooner
MAX_RETRY_SECONDS = 120  # the queue may be short by then, and a later retry would find an idle server

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The capacity of one model.

    slots: how many jobs its ready workers run at once. running: how many run now.
    service_seconds: the mean time of a job, None = not measured.
    context_tokens, token_bytes: as in `WorkerInfo`, of the worker that takes the longest text; 0: not known.
    """

    slots: int = 0
    running: int = 0
    service_seconds: float | None = None
    context_tokens: int = 0
    token_bytes: int = 0


class QueueEstimate:
    """The estimates of one process."""

    def __init__(self, client: RedisClient, *, model: str) -> None:
        self._redis = client
        self._model = model
        self._lock = threading.Lock()
        self._readings: dict[str, tuple[float, Capacity]] = {}  # by model, with the time.monotonic() of the reading

    def retry_after_seconds(self, waiting: int) -> int:
        """Return whole seconds until `waiting` jobs should have started: 1 to `MAX_RETRY_SECONDS`."""
        capacity = self._capacity(self._model)
        mean_seconds = DEFAULT_SERVICE_SECONDS if capacity.service_seconds is None else capacity.service_seconds
        seconds = math.ceil(waiting * mean_seconds / max(1, capacity.slots))
        fewest = 1 if capacity.slots else WORKER_START_SECONDS
        return min(MAX_RETRY_SECONDS, max(fewest, seconds))

    def capacity(self) -> Capacity:
        """Return what the ready workers can take; at most `FRESH_SECONDS` old."""
        return self._capacity(self._model)

    def start_times(self, jobs: Sequence[Job], positions: Sequence[QueuePosition | None]) -> list[float | None]:
        """Return when each job should start (Unix seconds), from the work that is done before it.

        None: it has started, no worker of its model is ready, or no job has been measured. If no job waits, Redis is
        not asked.
        """
        return [
            None if position is None or job.started_at is not None else self._start_time(job.model, position)
            for job, position in zip(jobs, positions, strict=True)
        ]

    def seconds_until_start(self, position: QueuePosition) -> float | None:
        """Return how long a job at this position of the queue should wait; None as in `start_times`."""
        return self._seconds_until_start(self._model, position)

    def _start_time(self, model: str, position: QueuePosition) -> float | None:
        seconds = self._seconds_until_start(model, position)
        return None if seconds is None else time.time() + seconds

    def _seconds_until_start(self, model: str, position: QueuePosition) -> float | None:
        capacity = self._capacity(model)
        if not capacity.slots or capacity.service_seconds is None:
            return None
        free = max(0, capacity.slots - capacity.running)
        return max(0.0, position.work_ahead + 1 - free) * capacity.service_seconds / capacity.slots

    def _capacity(self, model: str) -> Capacity:
        with self._lock:  # other threads wait for the one that reads
            read_at, capacity = self._readings.get(model, (-math.inf, Capacity()))
            if time.monotonic() - read_at >= FRESH_SECONDS:
                capacity = self._read(model)
                self._readings[model] = time.monotonic(), capacity
            return capacity

    def _read(self, model: str) -> Capacity:
        try:
            workers = read_workers(self._redis)
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(keys.shares(model), "seconds")
                pipe.zcard(keys.running(model))
                service_seconds, running = pipe.execute()
        except redis.RedisError as error:
            logger.warning("cannot read the capacity of the queue: %s", type(error).__name__)
            return Capacity()
        ready = [info for info in workers if info.model == model and info.state is WorkerState.READY]
        known = all(info.token_bytes for info in ready)
        largest = max(ready, key=lambda info: info.context_tokens * info.token_bytes, default=None)
        return Capacity(
            slots=sum(info.slots for info in ready),
            running=running,
            context_tokens=largest.context_tokens if largest and known else 0,
            token_bytes=largest.token_bytes if largest and known else 0,
            service_seconds=None if service_seconds is None else float(service_seconds),
        )
