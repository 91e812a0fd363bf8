"""`log_level`: which lines are written, in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
from app.config.log_level import set_log_level
set_log_level(sys.argv[1], libraries=getattr(logging, sys.argv[2]))
for name in ("app.api", "workers.x", "library"):
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logging.getLogger(name), level)("!")
"""


def lines(level: str, libraries: str = "INFO") -> list[str]:
    """Return `LEVEL name` of each line."""
    command = [sys.executable, "-c", PROGRAM, level, libraries]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [" ".join(line.split()[2:4]).removesuffix(":") for line in ran.stderr.splitlines()]


@pytest.mark.parametrize(
    ("level", "written"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2), ("critical", 1)]
)
def test_lines_from_the_level_on_are_written(level: str, written: int) -> None:
    names = [line.split()[1] for line in lines(level)]
    assert (names.count("app.api"), names.count("workers.x")) == (written, written)


def test_lines_of_libraries_begin_where_they_hold_no_requests() -> None:
    assert next(line for line in lines("debug") if "library" in line) == "INFO library"
    assert next(line for line in lines("debug", "WARNING") if "library" in line) == "WARNING library"
    assert [line for line in lines("error") if "library" in line] == ["ERROR library", "CRITICAL library"]
