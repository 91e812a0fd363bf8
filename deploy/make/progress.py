"""Shows how far an installation is: `pip install -v ... 2>&1 | python deploy/make/progress.py REQUIREMENTS`.

It runs before anything is installed, so it needs nothing but Python. A terminal gets bars, and how long the compiler
takes yet; anything else gets a line for each tenth.
"""

import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

_BAR_CELLS = 30
# Of llama.cpp, seconds on one core: 4 minutes on 2 cores that do nothing else, 8.6 and 11.5 on 2 that others used too.
_COMPILE_CORE_SECONDS = (480, 1200)
_SURE_SHARE = 0.4  # from this share on, the time left is estimated from the time that has passed: first steps are short
_SPREAD = (0.7, 1.4)  # of that estimate: the steps do not take equally long
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][\w.-]*==", re.MULTILINE)
_IGNORED = re.compile(r"^Ignoring [\w.-]+: markers")
_COLLECTED = re.compile(
    r"^(Collecting|Processing|Requirement already satisfied).* \(from -r "
)  # not what a build needs
_COMPILED = re.compile(r"\[(\d+)/(\d+)\]")
_BUILDING = "Building wheel for llama-cpp-python"
_INSTALLING = "Installing collected packages: "
COLLECT, COMPILE = "collecting packages", "compiling llama.cpp"


class Progress:
    """Draws one bar after the other. packages: how many the requirements name."""

    def __init__(self, packages: int, screen: TextIO) -> None:
        self._packages = packages
        self._screen = screen
        self._is_terminal = screen.isatty()
        self._doing = ""
        self._share = 0.0
        self._started = 0.0
        self._tenth = -1
        self._collected = 0

    def read(self, line: str) -> None:
        """Take a line of pip's output."""
        if self._doing == COMPILE and (match := _COMPILED.search(line)):
            self._show(int(match[1]) / int(match[2]))
        elif _IGNORED.match(line):
            self._packages -= 1
        elif _COLLECTED.match(line):
            self._collected += 1
            self._begin(COLLECT)
            self._show(self._collected / max(self._packages, self._collected))
        elif _BUILDING in line and self._doing != COMPILE:
            self._finish()
            low, high = (_minutes(seconds) for seconds in _compile_seconds())
            self._write(
                f"  compiling llama.cpp, which takes {low} to {high} minutes on {_cores()} core{'s'[_cores() < 2 :]}\n"
            )
            self._begin(COMPILE)
            self._show(0)
        elif line.startswith(_INSTALLING):
            self._finish()
            self._write(f"  installing {line.count(',') + 1} packages\n")

    def close(self) -> None:
        """Leave the last bar where it is: pip has ended, perhaps too early."""
        if self._is_terminal and self._doing:
            self._write("\n")

    def _begin(self, doing: str) -> None:
        if doing != self._doing:
            self._doing, self._share, self._started, self._tenth = doing, 0.0, time.monotonic(), -1

    def _finish(self) -> None:
        """End a bar at 100 %: pip does not say so of each step."""
        if self._doing and self._share < 1:
            self._show(1)
        self.close()
        self._doing = ""

    def _show(self, share: float) -> None:
        self._share = share
        left = _left(share, time.monotonic() - self._started) if self._doing == COMPILE else ""
        if self._is_terminal:
            cells = round(share * _BAR_CELLS)
            bar = "█" * cells + "░" * (_BAR_CELLS - cells)
            self._write(f"\r\x1b[K  {self._doing:<20} {bar} {share:4.0%}{left}")
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._write(f"  {self._doing} {share:.0%}{left}\n")

    def _write(self, text: str) -> None:
        self._screen.write(text)
        self._screen.flush()


def _left(share: float, passed: float) -> str:
    """Return a range: how busy the machine is decides."""
    if share == 1:
        return ""
    if share < _SURE_SHARE:
        low, high = (_minutes(seconds - passed) for seconds in _compile_seconds())
    else:
        estimate = passed * (1 - share) / share
        low, high = (_minutes(estimate * factor) for factor in _SPREAD)
    return f", {low} to {high} min left" if low < high else f", about {high} min left"


def _minutes(seconds: float) -> int:
    return max(1, math.ceil(seconds / 60))


def _compile_seconds() -> list[float]:
    return [seconds / _cores() for seconds in _COMPILE_CORE_SECONDS]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main() -> None:
    """Read pip's output to its end. Its exit status is what counts, so this one has none of its own."""
    progress = Progress(len(_REQUIREMENT.findall(Path(sys.argv[1]).read_text())), sys.stderr)
    for line in sys.stdin:
        progress.read(line)
    progress.close()


if __name__ == "__main__":
    main()
