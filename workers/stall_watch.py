"""Whether the threads that a worker needs still turn: Celery's consumer and the runner's loop."""

import logging
import time

from workers.engines.runner import Runner

TURN_SECONDS = 2.0  # the consumer turns at least so often, also without a message

logger = logging.getLogger(__name__)


class StallWatch:
    """Begins when the worker is ready. `consumer_turned` is called in the consumer's thread, `fault` in any."""

    def __init__(self, runner: Runner, stall_seconds: float) -> None:
        self._runner = runner
        self._stall_seconds = stall_seconds
        self._consumer_turned_at = time.monotonic()
        self._is_stalled = False

    def consumer_turned(self) -> None:
        self._consumer_turned_at = time.monotonic()

    def fault(self) -> str:
        """Return what stands still and for how long; empty: nothing. Logs each beginning of a stall."""
        standing = {
            "the model": self._runner.seconds_in_turn,
            "Celery's consumer": time.monotonic() - self._consumer_turned_at,
        }
        what, seconds = max(standing.items(), key=lambda each: each[1])
        if seconds < self._stall_seconds:
            self._is_stalled = False
            return ""
        fault = f"{what} has stood still for {seconds:.0f} s, longer than worker.stall_seconds: restart this worker"
        if not self._is_stalled:
            self._is_stalled = True
            logger.error("this worker is stalled: %s", fault)
        return fault
