"""Deadlines of tests: they grow with the slowness of the machine, so that a busy neighbour fails no test."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEASURED = "TESTS_MACHINE"  # an environment variable: processes of one run share what the first has measured
MOST = 8.0  # beyond that, a test that hangs would take too long to fail

_WORK = "sum(n * n for n in range(4_000_000))"
_IDLE_SECONDS = 0.22  # for the work and the start of its process, on the idle machine where the deadlines were set
_LOOK_SECONDS = 0.01


def scaled(seconds: float) -> float:
    """Return a deadline of `seconds` on an idle machine as this machine needs it now."""
    return seconds * slowness()


def slowness() -> float:
    """Return how many times longer work takes here and now than on the idle reference; 1 to `MOST`.

    How crowded the cores are is the worse of two figures: the one when the run began, and the one of this moment.
    """
    core, crowd_at_start = measured()
    return min(MOST, max(1.0, core * max(crowd_at_start, _crowd())))


@functools.cache
def measured() -> tuple[float, float]:
    """Measure this machine once a run.

    Returns:
        How many times slower a core is than one of the reference, and by how much other processes prolonged our work.
    """
    if MEASURED not in os.environ:
        os.environ[MEASURED] = " ".join(f"{figure:.2f}" for figure in _measure())
    core, crowd = map(float, os.environ[MEASURED].split())
    return core, crowd


def _measure() -> tuple[float, float]:
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", _WORK]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return cpu_seconds / _IDLE_SECONDS, (time.monotonic() - started) / cpu_seconds


def _crowd() -> float:
    """Return how many threads share a core: on average over a minute or, where the system knows it, at this moment."""
    threads = os.getloadavg()[0]
    moment = Path("/proc/loadavg")
    if moment.exists():
        threads = max(threads, float(moment.read_text().split()[3].partition("/")[0]))
    return threads / (os.cpu_count() or 1)


def until(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> float:
    """Wait for a condition to become true.

    Args:
        condition: Checked again and again.
        seconds: The deadline on an idle machine.
        what: The name of the condition, for the message.

    Returns:
        The seconds it took.

    Raises:
        AssertionError: It is still false after `scaled(seconds)`.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < scaled(seconds), f"waited in vain for {what}"
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - started
