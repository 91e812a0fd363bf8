"""`python -m tests.abuse [--only NAME ...]`: attack a running service, and print what a healthy client notices."""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.abuse.attacker import Outcomes, Target
from tests.abuse.healthy_client import HealthyClient, Latencies
from tests.abuse.scenarios import SCENARIOS, Scenario
from tests.abuse.service import Attacked, Megabytes, attacked_service

WARM_UP_SECONDS = 5.0
BEFORE_SECONDS = 10.0
CALM_SECONDS = 40.0  # for memory to come back
SETTLE_SECONDS = 1.0
SLOWER_AT_MOST = 3.0
MORE_MEMORY = 1.10
FIRST_SECONDS = 2.0  # of an attack before it is measured: what the first use of a part loads and keeps is no leak
SPARE_MEGABYTES = 4
LAST_NICENESS = 19  # an attacker has a machine of its own: here it takes only what is left
_SAMPLE_SECONDS = 0.5


@dataclass(slots=True)
class Row:
    """One attack and its effects. seconds are those of the healthy client's requests."""

    scenario: Scenario
    before: Latencies
    during: Latencies = field(default_factory=Latencies)
    outcomes: Outcomes = field(default_factory=Counter)
    memory_before: Megabytes = field(default_factory=Counter)
    memory_peak: Megabytes = field(default_factory=Counter)
    memory_after: Megabytes = field(default_factory=Counter)
    restarted: bool = False

    @property
    def broken(self) -> list[str]:
        """Return a line for each promise that was broken."""
        ratio = self.during.p99 / self.before.p99
        lines = [f"the healthy client's p99 is {ratio:.1f} times the one before"] if ratio > SLOWER_AT_MOST else []
        lines += [f"the healthy client got {self.during.failures}"] if self.during.failures else []
        lines += ["a process was restarted"] if self.restarted else []
        lines += [
            f"{name} keeps {self.memory_after[name]} MB" for name in self.memory_before if not self._is_back(name)
        ]
        return lines

    def _is_back(self, name: str) -> bool:
        return self.memory_after[name] <= max(
            self.memory_before[name] * MORE_MEMORY, self.memory_before[name] + SPARE_MEGABYTES
        )


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="make abuse", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[scenario.name for scenario in SCENARIOS], help="these alone")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if options.only is None or scenario.name in options.only]
    with tempfile.TemporaryDirectory() as folder, attacked_service(Path(folder)) as service:
        rows = attack(service, chosen)
        private = service.is_private()
    print(f"only this user may read the data: {'yes' if private else 'NO'}")
    return 0 if private and not any(row.broken for row in rows) else 1


def attack(service: Attacked, scenarios: list[Scenario]) -> list[Row]:
    """Run the attacks one after the other, and print a row for each."""
    spawn = multiprocessing.get_context("spawn")
    rows = []
    with (
        HealthyClient(service.url) as healthy,
        ProcessPoolExecutor(1, mp_context=spawn, initializer=os.nice, initargs=(LAST_NICENESS,)) as attacker,
    ):
        time.sleep(WARM_UP_SECONDS)
        healthy.measured()
        time.sleep(BEFORE_SECONDS)
        before = healthy.measured()
        print(
            f"before: p50 {before.p50 * 1000:.0f} ms, p99 {before.p99 * 1000:.0f} ms, {dict(before.failures)}",
            flush=True,
        )
        for scenario in scenarios:
            attacker.submit(scenario.attack, Target(service.url, FIRST_SECONDS)).result()
            time.sleep(SETTLE_SECONDS)
            row = Row(scenario, before, memory_before=service.memory())
            alive = service.programs()
            healthy.measured()
            running = attacker.submit(scenario.attack, Target(service.url, scenario.seconds))
            while not running.done():
                row.memory_peak |= service.memory()
                time.sleep(_SAMPLE_SECONDS)
            row.outcomes, row.during = running.result(), healthy.measured()
            row.memory_after = _calm(service, row)
            row.restarted = not alive <= service.programs()
            _print(row)
            rows.append(row)
    return rows


def _calm(service: Attacked, row: Row) -> Megabytes:
    """Return the memory when it has come back, or after `CALM_SECONDS`."""
    deadline = time.monotonic() + CALM_SECONDS
    while True:
        row.memory_after = service.memory()
        if time.monotonic() > deadline or not any("keeps" in line for line in row.broken):
            return row.memory_after
        time.sleep(_SAMPLE_SECONDS)


def _print(row: Row) -> None:
    during = row.during
    memory = ", ".join(
        f"{name} {row.memory_before[name]}/{row.memory_peak[name]}/{row.memory_after[name]}"
        for name in sorted(row.memory_before)
    )
    print(f"{row.scenario.name}: {row.scenario.title}")
    print(f"    the attacker got {', '.join(f'{name}: {count}' for name, count in sorted(row.outcomes.items()))}")
    print(f"    the healthy client: p50 {during.p50 * 1000:.0f} ms, p99 {during.p99 * 1000:.0f} ms")
    print(f"    memory before/peak/after in MB: {memory}", flush=True)
    for line in row.broken:
        print(f"    BROKEN: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
