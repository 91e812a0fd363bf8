"""The end of an API process: whoever still waits in it hears where the job goes on, in time for the answer to arrive.

gunicorn's worker has `graceful_timeout` seconds for the requests it is answering when it is told to stop (SIGTERM, a
reload, the arbiter's death); then they are cut. Its hooks for that moment run inside of a signal handler, or not at
all, so a thread looks whether it has come.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from app.api.waiting.waiters import Waiters

LOOK_SECONDS = 0.2
LAST_SECONDS = 4.0  # of the grace, for the answers: after the last one gunicorn keeps its connection for 2 s


class Shutdown:
    """Looks after one gunicorn worker. `at_once`: it was told to leave without any grace (SIGINT, SIGQUIT)."""

    def __init__(self, worker: Any, waiters: Waiters) -> None:
        self.at_once = False
        self._worker = worker
        self._waiters = waiters

    def start(self) -> None:
        threading.Thread(target=self._run, name="farewell", daemon=True).start()

    def _run(self) -> None:
        self._look_until(self._is_told)
        until = time.monotonic() + self._worker.cfg.graceful_timeout - LAST_SECONDS
        self._worker.alive = False  # after the arbiter's death nobody else says so
        self._look_until(lambda: not self._worker._accepting)
        self._refuse_connections()
        self._look_until(lambda: time.monotonic() >= until)
        self._waiters.shut_down()

    def _is_told(self) -> bool:
        return not self._worker.alive or os.getppid() != self._worker.ppid

    def _look_until(self, condition: Callable[[], bool]) -> None:
        """At the earliest after one look: gunicorn's loop may be between its look at `alive` and what follows."""
        time.sleep(LOOK_SECONDS)
        while not (self.at_once or condition()):
            time.sleep(LOOK_SECONDS)

    def _refuse_connections(self) -> None:
        """gunicorn leaves its sockets open until its end, where connections wait for nobody and are reset."""
        for listener in self._worker.sockets:
            listener.close()
