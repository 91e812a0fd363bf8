"""What `make` shows of an installation, made of pip's own lines, on a terminal and in a log."""

import io
import runpy
from collections.abc import Sequence
from typing import Any

import pytest

from tests.stack import ROOT

SCRIPT = runpy.run_path(str(ROOT / "deploy/make/progress.py"))
LINES = [
    "Ignoring colorama: markers 'sys_platform == \"win32\"' don't match your environment",
    "Collecting amqp==5.4.2 (from -r workers/requirements/llama.txt (line 3))",
    "  Downloading amqp-5.4.2-py3-none-any.whl",
    "Processing ./blinker-1.9.0-py3-none-any.whl (from -r workers/requirements/llama.txt (line 4))",
    "Requirement already satisfied: click==8.5.1 in .venv (from -r workers/requirements/llama.txt (line 5))",
    "Collecting llama-cpp-python==0.3.36 (from -r workers/requirements/llama.txt (line 6))",
]
BUILD = [
    "  Collecting packaging",
    "  Installing collected packages: packaging",
    "  Building wheel for llama-cpp-python (pyproject.toml): started",
    *(f"    [{number}/200] Building CXX object x.cpp.o" for number in range(1, 191)),
]
END = ["Installing collected packages: amqp, llama-cpp-python"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(screen: io.StringIO, lines: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what is shown where each line takes 2 s, on a machine with two CPUs."""
    seconds = iter(range(0, 10_000, 2))
    clock: Any = SCRIPT["Progress"]._show.__globals__
    monkeypatch.setattr(clock["time"], "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(clock["os"], "sched_getaffinity", lambda _: {0, 1})
    progress = SCRIPT["Progress"](5, screen)
    for line in lines:
        progress.read(line)
    progress.close()
    monkeypatch.undo()
    return screen.getvalue()


def test_a_log_gets_a_line_for_each_tenth_and_how_long_the_compiler_takes_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(io.StringIO(), [*LINES, *BUILD, *END], monkeypatch).splitlines()
    collecting = [line for line in lines if "collecting" in line]
    assert collecting == [f"  collecting packages {percent}%" for percent in (25, 50, 75, 100)], "and no time"
    assert "  compiling llama.cpp, which takes 4 to 10 minutes on 2 cores" in lines
    compiling = [line for line in lines if "compiling llama.cpp " in line]
    assert compiling[0] == "  compiling llama.cpp 0%, 4 to 10 min left", "before anything is known"
    assert compiling[5] == "  compiling llama.cpp 50%, 3 to 5 min left", "200 s have passed"
    assert compiling[10] == "  compiling llama.cpp 100%", "although pip names no last step"
    assert lines[-1] == "  installing 2 packages"


def test_a_terminal_gets_one_bar_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    shows = shown(Terminal(), [*LINES, *BUILD, *END], monkeypatch).split("\n")
    bars = [show.split("\x1b[K")[-1] for show in shows if "█" in show]
    assert [bar.split()[0] for bar in bars] == ["collecting", "compiling"]
    assert all(bar.endswith("█" * 30 + " 100%") for bar in bars)


def test_where_the_wheel_is_cached_nothing_is_said_of_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    output = shown(Terminal(), [*LINES, *END], monkeypatch)
    assert "min" not in output.replace("installing", "")


def test_a_bar_that_pip_left_early_does_not_end_at_100_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    output = shown(Terminal(), [*LINES, *BUILD, "ERROR: Failed building wheel for llama-cpp-python"], monkeypatch)
    assert output.splitlines()[-1].split("\x1b[K")[-1].split()[3].startswith("95%")


def test_make_run_compiles_nothing_where_wheels_are_named() -> None:
    recipe = (ROOT / "Makefile").read_text()
    assert "--no-index --only-binary :all: --find-links $(LLAMA_WHEELS)" in recipe
    assert recipe.count("deploy/make/progress.py") == 1
