"""What `make` shows of an installation, made of pip's own lines, on a terminal and in a log."""

import io
import runpy
from typing import Any

import pytest

from tests.stack import ROOT

SCRIPT = runpy.run_path(str(ROOT / "deploy/make/progress.py"))
LINES = [
    "Collecting amqp==5.4.2 (from -r workers/requirements/llama.txt (line 3))",
    "  Downloading amqp-5.4.2-py3-none-any.whl",
    "Collecting llama-cpp-python==0.3.36 (from -r workers/requirements/llama.txt (line 5))",
    "  Building wheel for llama-cpp-python (pyproject.toml): started",
    *(f"    [{number}/200] Building CXX object x.cpp.o" for number in range(1, 201)),
    "Installing collected packages: amqp, llama-cpp-python",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what is shown where each line takes a second, on a machine with two CPUs."""
    seconds = iter(range(10_000))
    clock: Any = SCRIPT["Progress"]._show.__globals__
    monkeypatch.setattr(clock["time"], "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(clock["os"], "sched_getaffinity", lambda _: {0, 1})
    progress = SCRIPT["Progress"](2, screen)
    for line in LINES:
        progress.read(line)
    progress.close()
    monkeypatch.undo()
    return screen.getvalue()


def test_a_log_gets_a_line_for_each_tenth_and_how_long_it_takes_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(io.StringIO(), monkeypatch).splitlines()
    assert lines[0].startswith("  collecting packages 50%") and lines[1] == "  collecting packages 100%"
    compiling = [line for line in lines if "compiling" in line]
    assert compiling[0] == "  compiling llama.cpp 0%, about 4 min left", "before anything is known"
    assert len(compiling) == 11 and compiling[5] == "  compiling llama.cpp 50%, about 2 min left"
    assert compiling[10] == "  compiling llama.cpp 100%"


def test_a_terminal_gets_one_bar_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = shown(Terminal(), monkeypatch).split("\n")
    assert [bar.split("\x1b[K")[-1].split()[0] for bar in bars if bar] == ["collecting", "compiling", "installing"]
    assert "█" * 15 + "░" * 15 + "  50%" in bars[1]
    assert bars[1].endswith("█" * 30 + " 100%")


def test_make_run_compiles_nothing_where_wheels_are_named() -> None:
    recipe = (ROOT / "Makefile").read_text()
    assert "--no-index --only-binary :all: --find-links $(LLAMA_WHEELS)" in recipe
    assert recipe.count("deploy/make/progress.py") == 1
