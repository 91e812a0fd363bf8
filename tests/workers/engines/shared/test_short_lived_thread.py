"""Threads that end together with their thread pools."""

import threading
import time
from pathlib import Path

import pytest
import torch

from tests.waiting import scaled
from workers.engines.shared.short_lived_thread import in_short_lived_thread

TASKS = Path("/proc/self/task")


def foreign_threads() -> int:
    """Return the number of threads of this process that Python did not start."""
    return len(list(TASKS.iterdir())) - threading.active_count()


def wait_for_threads(most: int) -> None:
    deadline = time.monotonic() + scaled(10)
    while foreign_threads() > most:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not TASKS.is_dir(), reason="needs /proc")
def test_no_thread_of_torch_is_left_behind() -> None:
    threads = torch.get_num_threads()
    during = []

    def work() -> float:
        torch.set_num_threads(3)
        total = float(torch.ones(4_000_000).mul(2).sum())
        during.append(foreign_threads())
        return total

    in_short_lived_thread(
        work
    )  # torch's first choice of a number of threads starts a second pool, which stays and sleeps
    wait_for_threads(during.pop() - 2)
    before = foreign_threads()
    try:
        assert in_short_lived_thread(work) == 8_000_000
    finally:
        torch.set_num_threads(threads)
    assert during[0] >= before + 2
    wait_for_threads(before)


def test_an_exception_in_the_thread_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        in_short_lived_thread(lambda: 1 // 0)
