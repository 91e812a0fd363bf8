"""Waiting for a condition with a deadline that a busy machine meets."""

import time
from collections.abc import Callable

DEADLINE_SECONDS = 60.0
_LOOK_SECONDS = 0.05


def until(condition: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Raises AssertionError, naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(_LOOK_SECONDS)
