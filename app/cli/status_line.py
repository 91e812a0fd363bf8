"""The terminal of `llm-api run`: lines of several programs, and below them one line that changes."""

import contextlib
import sys
import threading

_CLEAR_LINE = "\r\x1b[K"


class StatusLine:
    """Prints lines above a status, which a terminal shows last and anything else not at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = ""

    def say(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # the service outlives its terminal
            sys.stdout.write(f"{self._clear}{line}\n{self._status}")
            sys.stdout.flush()

    def show(self, status: str) -> None:
        """Change the status; an empty one is none."""
        with self._lock, contextlib.suppress(OSError):
            if sys.stdout.isatty():
                sys.stdout.write(self._clear + status)
                sys.stdout.flush()
                self._status = status

    @property
    def _clear(self) -> str:
        return _CLEAR_LINE if self._status else ""


TERMINAL = StatusLine()
"""The one of this process."""
