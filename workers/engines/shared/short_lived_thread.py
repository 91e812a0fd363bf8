"""Work of torch or ggml in a thread that ends.

Every thread that computes has a pool of OpenMP's threads for as long as it lives. Where all pools together are larger
than the number of CPUs, none of their threads spins any more: each operation of a step waits for the kernel to wake
one, and steps take half as long again. So no thread but the batch loop's keeps a pool.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def in_short_lived_thread(work: Callable[[], Found]) -> Found:
    """Returns or raises what `work` does."""
    found: list[Found] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="passing", daemon=True)  # a signal may end the process meanwhile
    thread.start()
    thread.join()
    if raised:
        raise raised.pop()
    return found.pop()
