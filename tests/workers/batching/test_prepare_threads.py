import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from tests.waiting import scaled, until
from workers.batching.prepare_threads import PrepareThreads


@pytest.fixture
def threads() -> Iterator[PrepareThreads]:
    made = PrepareThreads(threads=2, threads_of_a_tenant=1)
    yield made
    made.stop()


class Works:
    """Work that notes its beginning and waits for a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[str] = []

    def named(self, name: str) -> Callable[[], None]:
        def work() -> None:
            self.begun.append(name)
            assert self.gate.wait(scaled(10))

        return work


def test_a_tenant_never_has_all_threads(threads: PrepareThreads) -> None:
    works = Works()
    for number in range(5):
        threads.submit("greedy", works.named(f"greedy {number}"))
    until(lambda: works.begun == ["greedy 0"])
    threads.submit("other", works.named("other"))
    until(lambda: works.begun == ["greedy 0", "other"])
    works.gate.set()
    until(lambda: len(works.begun) == 6)


def test_a_thread_that_waits_holds_nothing_of_what_it_has_done(threads: PrepareThreads) -> None:
    works = Works()
    works.gate.set()
    work = works.named("done")
    held = weakref.ref(work)
    threads.submit("a", work)
    del work
    until(lambda: works.begun == ["done"] and held() is None)


def test_tenants_take_turns_and_the_work_of_one_keeps_its_order(threads: PrepareThreads) -> None:
    works = Works()
    threads.submit("blocker", works.named("blocker"))
    threads.submit("blocker 2", works.named("blocker 2"))
    until(lambda: len(works.begun) == 2)
    for number in range(3):
        threads.submit("a", works.named(f"a{number}"))
    threads.submit("b", works.named("b0"))
    works.gate.set()
    until(lambda: len(works.begun) == 6)
    assert works.begun.index("b0") < works.begun.index("a2")
    assert [name for name in works.begun if name.startswith("a")] == ["a0", "a1", "a2"]


def test_no_more_work_begins_after_the_end(threads: PrepareThreads) -> None:
    works = Works()
    threads.submit("a", works.named("first"))
    threads.submit("a", works.named("second"))
    until(lambda: works.begun == ["first"])
    threads.stop()
    works.gate.set()
    until(lambda: not any(thread.name.startswith("prepare-") for thread in threading.enumerate()))
    assert works.begun == ["first"]
