"""Work of torch, ggml or llguidance in a thread that ends.

A thread that computes with torch or ggml owns a pool of OpenMP threads for as long as it lives. Where all pools
together are larger than the number of CPUs, none of their threads spins: each operation of a step waits for the kernel
to wake one, and steps take half as long again. So no thread but the batch loop's keeps a pool.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

_starting = threading.Lock()  # the stack size is a setting of the process


def in_short_lived_thread(work: Callable[[], Result]) -> Result:
    """Return or raise what `work` does."""
    return outcome_in_thread(work).result()


def outcome_in_thread(work: Callable[[], Result], *, stack_bytes: int = 0) -> Future[Result]:
    """Run `work` in a thread and wait for its end. stack_bytes 0: the system's default."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    # daemon: a signal may end the process meanwhile
    thread = threading.Thread(target=run, name="short-lived", daemon=True)
    with _starting:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    return outcome
