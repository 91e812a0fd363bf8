"""A fault with its promises, and a way to run several scenarios at once, as they wait more than they compute."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import eq, ge, le
from pathlib import Path

from tests.faults.accounting import Counts

NOTES_SHOWN = 5
AT_ONCE = 4  # services of four or five processes each, on two cores

NOTHING_GOES_WRONG = {"lost": 0, "duplicated": 0, "wrong": 0, "unanswered": 0, "ended_processes": 0, "unsettled": 0}
"""What every scenario promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fault, and the limits of its counts by name.

    run: starts a service in a folder, loads it, injects the fault, and counts. at_most: called after the counting, as a
    limit in seconds depends on how busy the machine is.
    """

    name: str
    fault: str
    run: Callable[[Path], Counts]
    exactly: dict[str, int] = field(default_factory=dict)
    at_least: dict[str, int] = field(default_factory=dict)
    at_most: Callable[[], dict[str, float]] = dict

    def broken_promises(self, counts: Counts) -> list[str]:
        """Return a line for each count that breaks a promise."""
        limits = ((eq, "", NOTHING_GOES_WRONG | self.exactly), (ge, ">= ", self.at_least), (le, "<= ", self.at_most()))
        return [
            f"{name} is {getattr(counts, name)}, promised {sign}{limit}"
            for is_kept, sign, promised in limits
            for name, limit in promised.items()
            if not is_kept(getattr(counts, name), limit)
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a scenario."""

    scenario: Scenario
    counts: Counts
    seconds: float

    @property
    def broken(self) -> list[str]:
        """The broken promises with notes about them; empty if all were kept."""
        lines = self.scenario.broken_promises(self.counts)
        return [*lines, *self.counts.notes[:NOTES_SHOWN]] if lines else []


@contextmanager
def running(
    scenarios: Iterable[Scenario], folder: Path, at_once: int = AT_ONCE
) -> Iterator[dict[str, "Future[Outcome]"]]:
    """Start the scenarios, and yield futures of their outcomes by name, in that order."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="scenario")
    try:
        yield {scenario.name: pool.submit(_run, scenario, folder / scenario.name) for scenario in scenarios}
    finally:
        pool.shutdown(cancel_futures=True)


def _run(scenario: Scenario, folder: Path) -> Outcome:
    began = time.monotonic()
    counts = scenario.run(folder)
    return Outcome(scenario, counts, time.monotonic() - began)
