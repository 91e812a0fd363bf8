"""Processes that are ended when they take too much, and what the parent gets of it."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.waiting import scaled, until
from workers.engines.shared import child_process
from workers.engines.shared.child_process import NICENESS, ChildFailed, ChildLimit, ChildProcesses
from workers.engines.shared.child_program import Limits

PROBE = "tests.workers.engines.shared.child_probe"
LIMITS = Limits(cpu_seconds=0.5, memory_bytes=256 * 1024 * 1024, wait_seconds=scaled(20))


def _used_at_once(processes: ChildProcesses, uses: int) -> list[int]:
    """Return the process of each use."""
    with ThreadPoolExecutor(uses) as pool:
        replies = [pool.submit(processes.call, {"do": "sleep", "seconds": scaled(0.5)}) for _ in range(uses)]
    return [reply.result()["pid"] for reply in replies]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def processes() -> Iterator[ChildProcesses]:
    made = ChildProcesses(PROBE, LIMITS, {}, most=2)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("compute", "it took more than 0.5 s of a CPU"),
        ("eat", "it needs more than 256 MB of memory"),
        ("crash", "it ends the process"),
        ("exit", "it ends the process"),
    ],
)
def test_a_process_that_takes_too_much_is_ended_and_another_takes_its_place(
    processes: ChildProcesses, what: str, limit: str
) -> None:
    ended = processes.call({})["pid"]
    with pytest.raises(ChildLimit, match=limit):
        processes.call({"do": what})
    assert processes.call({})["pid"] != ended
    with pytest.raises(ProcessLookupError):
        os.kill(ended, 0)


def test_a_process_that_does_not_reply_is_ended() -> None:
    hurried = ChildProcesses(PROBE, replace(LIMITS, wait_seconds=scaled(2)), {})
    with pytest.raises(ChildLimit, match="it took longer than"):
        hurried.call({"do": "sleep", "seconds": scaled(60)})
    hurried.close()


def test_a_process_shares_its_parents_session_but_not_its_group(processes: ChildProcesses) -> None:
    child = processes.call({})
    assert child["session"] == os.getsid(0), "the kernel may give each session CPU shares of its own"
    assert child["group"] == child["pid"], "Ctrl+C is for the parent"


def test_the_thread_that_works_is_as_nice_as_its_limits_say(processes: ChildProcesses) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert processes.call({})["nice"] == own
    nicer = ChildProcesses(PROBE, replace(LIMITS, niceness=3), {})
    assert nicer.call({})["nice"] == own + 3
    nicer.close()


def test_an_error_of_the_program_is_shown_by_its_kind(processes: ChildProcesses) -> None:
    with pytest.raises(ChildFailed, match=r"^ValueError$"):
        processes.call({"do": "fail", "secret": "the prompt"})


def test_a_process_gets_no_secrets(processes: ChildProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_AUTH__API_KEYS", "secret")
    fresh = ChildProcesses(PROBE, LIMITS, {})
    names = fresh.call({"do": "environment"})["names"]
    fresh.close()
    assert not [name for name in names if "API" in name or "TOKEN" in name or "REDIS" in name]


def test_two_uses_at_once_get_two_processes_and_three_wait(processes: ChildProcesses) -> None:
    assert len(set(_used_at_once(processes, 3))) == 2


def test_a_process_beyond_the_first_ends_when_it_is_not_needed(
    processes: ChildProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "SPARE_SECONDS", 0.5)
    pids = _used_at_once(processes, 2)
    until(lambda: not all(_lives(pid) for pid in pids))
    until(lambda: not any(_lives(pid) for pid in pids), what="the end of both, which were slow")
    kept = processes.call({})["pid"]
    time.sleep(1.2)
    assert processes.call({})["pid"] == kept, "the last one is kept"
    assert len(set(_used_at_once(processes, 2))) == 2, "another may be started again"


def test_what_takes_long_continues_at_a_higher_niceness_and_later_uses_do_not(
    processes: ChildProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "SPARE_SECONDS", 0.5)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    quick = processes.call({})
    slow = processes.call({"do": "sleep", "seconds": scaled(0.5)})
    assert (quick["nice"], slow["nice"], slow["pid"]) == (own, min(19, own + NICENESS), quick["pid"])
    until(lambda: processes.call({})["nice"] == own)
    until(lambda: not _lives(slow["pid"]))


def test_a_process_in_the_place_of_one_that_took_too_much_is_nice_from_its_start(processes: ChildProcesses) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with pytest.raises(ChildLimit):
        processes.call({"do": "compute"})
    assert processes.call({})["nice"] == min(19, own + NICENESS)


def test_closing_ends_a_process_that_computes(processes: ChildProcesses) -> None:
    ended = processes.call({})["pid"]
    processes.close()
    with pytest.raises(ProcessLookupError):
        os.kill(ended, 0)
