"""`python -m tests.faults [--only NAME ...] [--at-once N]`: inject every fault, print the results."""

import argparse
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path
from traceback import format_exception_only

from tests.faults.scenario import AT_ONCE, Outcome, Scenario, running
from tests.faults.scenarios import SCENARIOS

LINE_CHARACTERS = 300
COLUMNS = {
    "jobs": "accepted",
    "ok": "succeeded",
    "failed": "failed",
    "canceled": "canceled",
    "lost": "lost",
    "twice": "duplicated",
    "wrong": "wrong",
    "unanswered": "unanswered",
    "unsettled": "unsettled",
    "continued": "continued",
    "resumed": "resumed",
    "takeover": "takeover_seconds",
}
_FAULT_WIDTH = max(len(scenario.fault) for scenario in SCENARIOS)


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[scenario.name for scenario in SCENARIOS], help="these alone")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="how many scenarios run at the same time")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if options.only is None or scenario.name in options.only]
    with tempfile.TemporaryDirectory() as folder, running(chosen, Path(folder), options.at_once) as outcomes:
        print(f"{'fault':{_FAULT_WIDTH}}  {'  '.join(f'{title:>4}' for title in COLUMNS)}  seconds")
        kept = [_print_row(scenario, outcomes[scenario.name]) for scenario in chosen]
    return 0 if all(kept) else 1


def _print_row(scenario: Scenario, outcome: "Future[Outcome]") -> bool:
    """Wait for the outcome, print it, and return whether every promise was kept."""
    error = outcome.exception()
    if error is not None:
        print(f"{scenario.fault:{_FAULT_WIDTH}}  {''.join(format_exception_only(error)).strip()}", flush=True)
        return False
    counts, broken = outcome.result().counts, outcome.result().broken
    cells = [f"{getattr(counts, name):>{max(4, len(title))}}" for title, name in COLUMNS.items()]
    print(f"{scenario.fault:{_FAULT_WIDTH}}  {'  '.join(cells)}  {outcome.result().seconds:7.0f}", flush=True)
    for line in broken:
        print(f"    {line[:LINE_CHARACTERS]}", flush=True)
    return not broken


if __name__ == "__main__":
    sys.exit(main())
