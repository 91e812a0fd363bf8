"""The reaper: what happens to the jobs of a worker that died. It runs `lua/reap.lua` once a second for each model.

- A job whose lease has expired goes back into the order, or is `failed` with `worker_lost` after it has been
  blamed for `jobs.max_attempts` deaths. A blamed job is then tried alone: `workers.jobs.quarantine`.
- A job that must not start before a time enters the order at that time.
- A job that has waited longer than its `expires_in` is `expired`.
- A job that has waited for `jobs.aging_seconds` rises by one priority class.
- There are as many doorbells as waiting jobs, also after a consumer died with one.
- After a gap without any turn (Redis was away, the machine slept) the workers get time to renew their leases first.
"""

import logging
import threading

import redis

from app.config.counted import counted
from app.jobs import keys
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.order import doorbell
from app.jobs.redis_client import RedisClient, script
from app.jobs.sharing import DEFAULT_SHARING, Sharing
from app.jobs.store import LEASE_SECONDS

TURN_SECONDS = 1.0
# If no process has reaped for OUTAGE_SECONDS after a turn was due, Redis or the machine was suspended. Shorter gaps
# cannot expire a lease. After such a gap, the next turn comes GRACE_SECONDS later, so that workers can renew first.
OUTAGE_SECONDS = 3.0
GRACE_SECONDS = 7.0
JOBS_PER_TURN = 100  # of each kind, tens of microseconds each, in which Redis does nothing else
EVENTS_PER_TURN = 1000  # read for the partial texts of jobs that end, two microseconds each
_TURN_FRACTION = 0.9  # of TURN_SECONDS until the next turn is due, so that a single process does not skip turns

logger = logging.getLogger(__name__)


class Reaper:
    """Each process runs one. Redis lets one of them act per second."""

    def __init__(
        self,
        client: RedisClient,
        *,
        model: str,
        ttl_seconds: int,
        max_attempts: int,
        sharing: Sharing = DEFAULT_SHARING,
        ledger: LedgerLimits = LedgerLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._redis = client
        self._model = model
        self._order = sharing.order_of(model)
        self._kept = ledger.kept(ttl_seconds)
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
        indexes = [keys.reaper, keys.running, keys.expiring, keys.ended, keys.doorbells, keys.scheduled]
        requeued: int = self._reap(
            keys=[index(self._model) for index in indexes],
            args=[
                self._order,
                self._kept,
                self._max_attempts,
                str(TURN_SECONDS * _TURN_FRACTION),
                str(OUTAGE_SECONDS),
                str(GRACE_SECONDS),
                JOBS_PER_TURN,
                EVENTS_PER_TURN,
                LEASE_SECONDS,
                f"{counted(self._max_attempts, 'worker')} died while running this job (jobs.max_attempts)",
                doorbell(self._model),
            ],
        )
        if requeued:
            jobs = counted(requeued, "job")
            logger.warning("back in the order, after the loss of their workers: %s of %s", jobs, self._model)
        return requeued

    def _run(self) -> None:
        while not self._stopping.wait(TURN_SECONDS):
            try:
                self.reap()
            except redis.RedisError as error:
                logger.debug("no turn: %s", type(error).__name__)
