"""Waits for what is about to become true."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 10.0) -> float:
    """How many seconds it took. Fails after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it never came true"
        time.sleep(0.01)
    return time.monotonic() - started
