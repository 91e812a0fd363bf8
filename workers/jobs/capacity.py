"""How many jobs a worker has, and whether it may fetch another."""

import threading
from collections.abc import Callable

MAX_FOLLOWERS = 256  # jobs that need no slot, beyond the slots; each is renewed, and written at every step if streamed


class Capacity:
    """As many as slots, for jobs claimed or being claimed whose outcome is not written yet. A job that follows another
    with the same tokens takes none.

    slots, followers: how many there are now. on_freed: called when a place becomes free after all were taken.
    """

    def __init__(self, *, slots: Callable[[], int], followers: Callable[[], int], on_freed: Callable[[], None]) -> None:
        self.jobs = 0
        self._slots = slots
        self._followers = followers
        self._on_freed = on_freed
        self._changed = threading.Condition()

    @property
    def are_taken(self) -> bool:
        return self.jobs - min(self._followers(), MAX_FOLLOWERS) >= self._slots()

    def enter(self) -> None:
        with self._changed:
            self.jobs += 1

    def leave(self) -> None:
        with self._changed:
            were_taken = self.are_taken
            self.jobs -= 1
            self._changed.notify_all()
        if were_taken:
            self._on_freed()

    def wait_until_empty(self, seconds: float) -> bool:
        """False: some jobs are left."""
        with self._changed:
            return self._changed.wait_for(lambda: self.jobs == 0, timeout=seconds)
