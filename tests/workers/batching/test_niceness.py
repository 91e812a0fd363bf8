"""Who gives way, for real: the kernel's own view of each thread."""

import os
import sys
import threading

import pytest

from workers.batching.niceness import set_niceness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")


def niceness_behind(*calls: int) -> tuple[int, int]:
    """Of a thread that gives way so often, and of one that it starts then."""
    found: list[int] = []

    def look() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def work() -> None:
        for nice in calls:
            set_niceness(nice)
        look()
        inner = threading.Thread(target=look)
        inner.start()
        inner.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    own, started = found
    return own, started


def test_a_thread_gives_way_with_all_it_starts_and_no_other_thread_does() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    nice = min(before + 5, 19)
    assert niceness_behind(nice) == (nice, nice)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_thread_that_is_nicer_already_stays_so() -> None:
    assert niceness_behind(19, 3) == (19, 19)
