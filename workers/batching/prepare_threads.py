"""Threads that prepare jobs: owners take turns, and no owner has all of them, so that none waits for another's work."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

Work = Callable[[], None]

THREADS = 4
THREADS_OF_AN_OWNER = THREADS - 1


class PrepareThreads:
    """Runs work, which must not raise. Threads start when there is work, and end with the process or at `stop`."""

    def __init__(self, threads: int = THREADS, threads_of_an_owner: int = THREADS_OF_AN_OWNER) -> None:
        self._count = threads
        self._most_of_an_owner = threads_of_an_owner
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()  # by owner, whose turn is next first
        self._running: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopping = False

    def submit(self, owner: str, work: Work) -> None:
        with self._changed:
            self._waiting.setdefault(owner, deque()).append(work)
            if len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, name=f"prepare-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Begin no more work. Does not wait for what runs."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            owner, work = taken
            try:
                work()
            finally:
                self._done(owner)

    def _take(self) -> tuple[str, Work] | None:
        """Wait for the work whose turn it is. None: stop."""
        with self._changed:
            while not self._stopping:
                owner = next((one for one in self._waiting if self._running[one] < self._most_of_an_owner), None)
                if owner is not None:
                    return owner, self._begin(owner)
                self._changed.wait()
        return None

    def _begin(self, owner: str) -> Work:
        works = self._waiting.pop(owner)
        work = works.popleft()
        if works:
            self._waiting[owner] = works  # last in turn
        self._running[owner] += 1
        return work

    def _done(self, owner: str) -> None:
        with self._changed:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]
            self._changed.notify()
