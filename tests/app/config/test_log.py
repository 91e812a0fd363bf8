"""The log: which lines are written, and how, in a process of its own."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
from app.config.log import log_event, set_up_log
from app.config.observability import LogConfig
set_up_log(LogConfig(level=sys.argv[1], format=sys.argv[3]), libraries=getattr(logging, sys.argv[2]))
for name in ("app.api", "workers.x", "library"):
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logging.getLogger(name), level)("!")
if sys.argv[1] == "critical":
    log_event(logging.getLogger("app.x"), logging.CRITICAL, "GET /jobs 200", ms=1.5, key="100 %s", job=None)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("app.x").critical("it %s", "failed", exc_info=True)
"""


def written(level: str, libraries: str = "INFO", form: str = "text") -> list[str]:
    command = [sys.executable, "-c", PROGRAM, level, libraries, form]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return ran.stderr.splitlines()


def lines(level: str, libraries: str = "INFO") -> list[str]:
    """Return `LEVEL name` of each line."""
    return [" ".join(line.split()[2:4]).removesuffix(":") for line in written(level, libraries)]


@pytest.mark.parametrize(("level", "count"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2)])
def test_lines_from_the_level_on_are_written(level: str, count: int) -> None:
    names = [line.split()[1] for line in lines(level)]
    assert (names.count("app.api"), names.count("workers.x")) == (count, count)


def test_lines_of_libraries_begin_where_they_hold_no_requests() -> None:
    assert next(line for line in lines("debug") if "library" in line) == "INFO library"
    assert next(line for line in lines("debug", "WARNING") if "library" in line) == "WARNING library"
    assert [line for line in lines("error") if "library" in line] == ["ERROR library", "CRITICAL library"]


def test_an_event_has_its_values_behind_its_message() -> None:
    (line,) = [line for line in written("critical") if "GET" in line]
    assert line.endswith("CRITICAL app.x: GET /jobs 200 ms=1.5 key=100 %s")


def test_in_json_each_line_is_an_object_with_the_values_of_its_event_and_the_traceback() -> None:
    objects = [json.loads(line) for line in written("critical", form="json")]
    assert [line["logger"] for line in objects] == ["app.api", "workers.x", "library", "app.x", "app.x"]
    event, failure = objects[-2:]
    assert event.pop("time").endswith("+00:00")
    assert event == {"level": "critical", "logger": "app.x", "message": "GET /jobs 200", "ms": 1.5, "key": "100 %s"}
    assert failure["message"] == "it failed"
    assert "ZeroDivisionError" in failure["exception"]
