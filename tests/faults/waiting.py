"""Waiting for a condition, with a deadline that grows with the slowness of the machine."""

import time
from collections.abc import Callable

from tests.waiting import scaled

DEADLINE_SECONDS = 60.0
_LOOK_SECONDS = 0.05


def until(condition: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for a condition to become true.

    Args:
        condition: Checked again and again.
        what: The name of the condition, for the message.
        seconds: The deadline on an idle machine.

    Raises:
        AssertionError: It is still false after `scaled(seconds)`.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < scaled(seconds), f"waited {scaled(seconds):.0f} s in vain for {what}"
        time.sleep(_LOOK_SECONDS)
