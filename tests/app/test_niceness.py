"""The niceness of each thread, as the kernel reports it."""

import os
import sys
import threading

import pytest

from app.niceness import set_niceness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")


def niceness_after(*calls: int) -> tuple[int, int]:
    """Return the niceness of a thread after these calls, and of a thread that it starts afterwards."""
    values: list[int] = []

    def record() -> None:
        values.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def work() -> None:
        for nice in calls:
            set_niceness(nice)
        record()
        inner = threading.Thread(target=record)
        inner.start()
        inner.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    own, started = values
    return own, started


def test_a_thread_and_those_it_starts_become_nicer_and_no_other_thread_does() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    nice = min(before + 5, 19)
    assert niceness_after(nice) == (nice, nice)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_thread_that_is_nicer_already_stays_so() -> None:
    assert niceness_after(19, 3) == (19, 19)
