"""Who computes on all CPUs gives way to who has little to do, and whom somebody waits for."""

import os
import sys
import threading


def set_niceness(nice: int) -> None:
    """Have the calling thread, and those it starts from now on, run at this niceness: 0 to 19, 19 gives way most.

    A thread that is nicer already stays so. Only Linux has a niceness of each thread; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
