"""Sets the niceness of a thread: one that computes all the time must not delay those that wake up for a moment
(docs/decisions/0024-niceness-of-computing-threads.md).
"""

import os
import sys
import threading


def set_niceness(nice: int) -> None:
    """Run the calling thread, and those it starts from now on, at this niceness: 0 to 19, 19 is the lowest priority.

    A thread that is nicer already stays so. Only Linux has a niceness of each thread; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
