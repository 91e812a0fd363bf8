"""Shows how far an installation is: `pip install -v ... 2>&1 | python deploy/make/progress.py REQUIREMENTS`.

It runs before anything is installed, so it needs nothing but Python. A terminal gets a bar that says how long it will
take yet; anything else gets a line for each tenth.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

_BAR_CELLS = 30
_COMPILE_CORE_SECONDS = 480  # of llama.cpp, measured: 4 minutes on 2 cores
_SURE_SHARE = 0.05  # from this share on, the time left is estimated from the time that has passed
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][\w.-]*==", re.MULTILINE)
_COLLECTING = re.compile(r"^\s*Collecting ([\w.-]+)")
_COMPILED = re.compile(r"\[(\d+)/(\d+)\]")
_INSTALLING = "Installing collected packages"


class Progress:
    """Draws one bar after the other. packages: how many pip collects."""

    def __init__(self, packages: int, screen: TextIO) -> None:
        self._packages = packages
        self._screen = screen
        self._is_terminal = screen.isatty()
        self._doing = ""
        self._started = 0.0
        self._tenth = -1
        self._collected = 0

    def read(self, line: str) -> None:
        """Take a line of pip's output."""
        if match := _COMPILED.search(line):
            self._show("compiling llama.cpp", int(match[1]), int(match[2]), first_guess=_compile_seconds())
        elif match := _COLLECTING.match(line):
            self._collected += 1
            self._show("collecting packages", self._collected, max(self._packages, self._collected))
        elif "Building wheel for llama-cpp-python" in line and self._doing != "compiling llama.cpp":
            self._show("compiling llama.cpp", 0, 1, first_guess=_compile_seconds())
        elif _INSTALLING in line:
            self._show("installing packages", 0, 1)

    def close(self) -> None:
        if self._is_terminal and self._doing:
            self._screen.write("\n")

    def _show(self, doing: str, done: int, total: int, *, first_guess: float = 0.0) -> None:
        if doing != self._doing:
            self.close()
            self._doing, self._started, self._tenth = doing, time.monotonic(), -1
        share = done / total
        left = _left(share, time.monotonic() - self._started, first_guess)
        if self._is_terminal:
            cells = round(share * _BAR_CELLS)
            bar = "█" * cells + "░" * (_BAR_CELLS - cells)
            self._screen.write(f"\r\x1b[K  {doing:<20} {bar} {share:4.0%}{left}")
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._screen.write(f"  {doing} {share:.0%}{left}\n")
        self._screen.flush()


def _left(share: float, passed: float, first_guess: float) -> str:
    seconds = passed * (1 - share) / share if share > _SURE_SHARE else first_guess
    if share == 1 or seconds < 1:
        return ""
    return (
        f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {max(5, round(seconds / 5) * 5)} s left"
    )


def _compile_seconds() -> float:
    return _COMPILE_CORE_SECONDS / len(os.sched_getaffinity(0))


def main() -> None:
    """Read pip's output to its end. Its exit status is what counts, so this one has none of its own."""
    progress = Progress(len(_REQUIREMENT.findall(Path(sys.argv[1]).read_text())), sys.stderr)
    for line in sys.stdin:
        progress.read(line)
    progress.close()


if __name__ == "__main__":
    main()
