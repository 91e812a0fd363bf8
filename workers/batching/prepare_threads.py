"""Threads that prepare jobs: tenants take turns, and no tenant has all of them, so that none waits for another."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

Work = Callable[[], None]

THREADS = 4
THREADS_OF_A_TENANT = THREADS - 1


class PrepareThreads:
    """Runs work, which must not raise. Threads start when there is work, and end with the process or at `stop`."""

    def __init__(self, threads: int = THREADS, threads_of_a_tenant: int = THREADS_OF_A_TENANT) -> None:
        self._count = threads
        self._most_of_a_tenant = threads_of_a_tenant
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()  # by tenant, whose turn is next first
        self._running: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopping = False

    def submit(self, tenant: str, work: Work) -> None:
        with self._changed:
            self._waiting.setdefault(tenant, deque()).append(work)
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
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Return False at the end. A thread that waits holds no work: it would keep its job, and what that uses."""
        taken = self._take()
        if taken is None:
            return False
        tenant, work = taken
        try:
            work()
        finally:
            self._done(tenant)
        return True

    def _take(self) -> tuple[str, Work] | None:
        """Wait for the work whose turn it is. None: stop."""
        with self._changed:
            while not self._stopping:
                tenant = next((one for one in self._waiting if self._running[one] < self._most_of_a_tenant), None)
                if tenant is not None:
                    return tenant, self._begin(tenant)
                self._changed.wait()
        return None

    def _begin(self, tenant: str) -> Work:
        works = self._waiting.pop(tenant)
        work = works.popleft()
        if works:
            self._waiting[tenant] = works  # last in turn
        self._running[tenant] += 1
        return work

    def _done(self, tenant: str) -> None:
        with self._changed:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
            self._changed.notify()
