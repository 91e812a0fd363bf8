"""The reaper: what happens to the jobs of a worker that died. It runs `lua/reap.lua` once a second for each model.

- A job whose worker let its lease run out goes back into the order, or is `failed` with `worker_lost` after
  `jobs.max_attempts` workers have died with it.
- A job that has waited longer than its `expires_in` is `expired`.
- There are as many doorbells as waiting jobs, also after a consumer died with one.
- After a pause without any turn (Redis was away, the machine slept) the workers get time to renew their leases first.
"""

import logging
import threading

import redis

from app.jobs import keys
from app.jobs.order import doorbell
from app.jobs.redis_client import RedisClient, script
from app.jobs.store import LEASE_SECONDS

TURN_SECONDS = 1.0
AWAY_SECONDS = 3.0  # so long after a turn was due, all were away; a lease outlives a shorter absence
PAUSE_SECONDS = 7.0  # then: more than a worker takes to reconnect and renew
JOBS_PER_TURN = 100  # of each kind, tens of microseconds each, in which Redis does nothing else
EVENTS_PER_TURN = 1000  # read for the partial texts of jobs that end, two microseconds each
_TURN_SHARE = 0.9  # of a turn until the next is due: less than all, so that one caller alone never misses its own

logger = logging.getLogger(__name__)


class Reaper:
    """One per process that wants to help; they take turns."""

    def __init__(self, client: RedisClient, *, model: str, ttl_seconds: int, max_attempts: int) -> None:
        self._redis = client
        self._model = model
        self._ttl_seconds = ttl_seconds
        self._max_attempts = max_attempts
        self._reap = script(client, "reap")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def reap(self) -> int:
        """Take one turn, unless another process has just had it.

        Returns:
            How many jobs of lost workers are back in the order.
        """
        indexes = [keys.reaper, keys.running, keys.queued, keys.expiring, keys.ended, keys.doorbells]
        requeued: int = self._reap(
            keys=[index(self._model) for index in indexes],
            args=[
                keys.PREFIX,
                self._ttl_seconds,
                self._max_attempts,
                keys.NOTIFICATIONS_CHANNEL,
                str(TURN_SECONDS * _TURN_SHARE),
                str(AWAY_SECONDS),
                str(PAUSE_SECONDS),
                JOBS_PER_TURN,
                EVENTS_PER_TURN,
                LEASE_SECONDS,
                f"{self._max_attempts} workers died while they ran this job (jobs.max_attempts)",
                doorbell(self._model),
            ],
        )
        if requeued:
            logger.warning("%d jobs of %s are in the order again: their workers were lost", requeued, self._model)
        return requeued

    def _run(self) -> None:
        while not self._stopping.wait(TURN_SECONDS):
            try:
                self.reap()
            except redis.RedisError as error:
                logger.debug("no turn: %s", type(error).__name__)
