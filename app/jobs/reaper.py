"""Looks after the jobs that nobody looks after: `lua/reap.lua`, once a second for each model, from any process.

- A job whose worker let its lease run out goes back into the queue, or is `failed` with `worker_lost` after
  `jobs.max_attempts` workers have died with it.
- A queued job whose message got lost (a consumer died between taking it and the claim) gets another.
- A job that has waited longer than its `expires_in` is `expired`.
- After a while without anybody's turn (Redis was away, the machine slept) the workers have time to renew their leases
  before anybody reaps.
"""

import logging
import threading

import redis

from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.order import Queues
from app.jobs.redis_client import LoadedScript, RedisClient, script
from app.jobs.store import LEASE_SECONDS

TURN_SECONDS = 1.0
AWAY_SECONDS = 3.0  # so long after a turn was due, all were away; a lease outlives a shorter absence
PAUSE_SECONDS = 7.0  # then: more than a worker takes to reconnect and renew
MISSING_SECONDS = 5.0  # a message that a consumer holds is claimed within milliseconds
JOBS_PER_TURN = 100  # of each kind, tens of microseconds each, in which Redis does nothing else
EVENTS_PER_TURN = 1000  # read for the partial texts of jobs that end, two microseconds each
_TURN_SHARE = 0.9  # of a turn until the next is due: less than all, so that one caller alone never misses its own

logger = logging.getLogger(__name__)


class Reaper:
    """One per process that wants to help; they take turns."""

    def __init__(self, client: RedisClient, *, model: str, queues: Queues, ttl_seconds: int, max_attempts: int) -> None:
        self._redis = client
        self._model = model
        self._queues = queues
        self._ttl_seconds = ttl_seconds
        self._max_attempts = max_attempts
        self._reap = script(client, "reap")
        self._send = LoadedScript(client, "send")
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
        """One turn, unless another process has just had it. Returns how many jobs got a message."""
        lists = [self._queues.list_key(priority) for priority in Priority]
        indexes = [keys.reaper, keys.running, keys.queued, keys.expiring, keys.ended, keys.missing]
        found = self._reap(
            keys=[*(index(self._model) for index in indexes), *lists],
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
                str(MISSING_SECONDS),
                LEASE_SECONDS,
                f"{self._max_attempts} workers died while they ran this job (jobs.max_attempts)",
            ],
        )
        self._send_messages([(found[at], Priority(found[at + 1])) for at in range(0, len(found), 2)])
        return len(found) // 2

    def _send_messages(self, jobs: list[tuple[str, Priority]]) -> None:
        """A message for each job. What does not get there is missed by a later turn."""
        if not jobs:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id, priority in reversed(jobs):  # so that most go before the others, which is the shortest way
                send_keys = [keys.queued(self._model), self._queues.list_key(priority)]
                self._send.call(pipe, keys=send_keys, args=[job_id, self._queues.message(job_id, priority)])
            self._send.execute(pipe)
        logger.warning("%d jobs of %s are in the queue again", len(jobs), self._model)

    def _run(self) -> None:
        while not self._stopping.wait(TURN_SECONDS):
            try:
                self.reap()
            except redis.RedisError as error:
                logger.debug("no turn: %s", type(error).__name__)
