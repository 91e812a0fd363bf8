"""What `run` shows while it starts, and once the service is ready."""

import contextlib
import io
from pathlib import Path

import pytest

from app.cli.announce import TimeLeft, ready_line, say_ready
from app.cli.preparation import sole_use_of
from app.cli.status_line import StatusLine
from app.config.server import ServerConfig
from app.config.settings import AuthConfig, Config


def test_the_ready_line_can_be_pasted_and_shows_no_key() -> None:
    config = Config(model_name="m", server=ServerConfig(port=80), auth=AuthConfig(api_keys=("hunter2",)))
    line = ready_line(config)
    assert line.startswith("ready: http://localhost:80 ")
    assert "curl http://localhost:80/generate -H 'Authorization: Bearer YOUR_API_KEY'" in line
    assert "hunter2" not in line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def box() -> dict[str, str]:
    with contextlib.redirect_stdout(Terminal()) as screen:
        say_ready(Config(model_name="m", server=ServerConfig(port=80)))
    top, *lines, bottom = screen.getvalue().splitlines()
    assert "LLM API is ready" in top and len(top) == len(bottom) and set(bottom) == {"─"}
    return dict(line.split(maxsplit=1) for line in lines)


def test_a_terminal_gets_a_box_whose_commands_can_be_copied() -> None:
    shown = box()
    assert shown["page"] == "http://localhost:80" and shown["stop"] == "Ctrl-C"
    assert shown["try"].startswith("curl http://localhost:80/generate ")


def test_the_command_for_another_terminal_names_the_url_unless_it_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_API_PORT", "80")
    assert box()["chat"].endswith(" chat --url http://localhost:80"), "the other terminal lacks the variable"
    with sole_use_of(Path("data"), "http://localhost:80"):
        assert box()["chat"].endswith(" chat")


def test_lines_of_programs_stand_above_the_bar_of_a_download() -> None:
    terminal = StatusLine()
    with contextlib.redirect_stdout(Terminal()) as screen:
        terminal.show("half")
        terminal.say("worker | a line")
        terminal.show("")
        terminal.say("the end")
    assert screen.getvalue() == "half\r\x1b[Kworker | a line\nhalf\r\x1b[Kthe end\n"


def test_the_time_left_is_estimated_from_the_progress_that_was_seen() -> None:
    estimate = TimeLeft()
    assert estimate.after(0.5, 100.0) == "", "a download that goes on where it was has said nothing yet"
    assert estimate.after(0.6, 120.0) == ", about 80 s left"
    assert estimate.after(0.7, 300.0) == ", about 5 min left"
    assert estimate.after(0.1, 310.0) == "", "another download"
