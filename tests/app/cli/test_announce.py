"""What `run` shows while it starts, and once the service is ready."""

import contextlib
import io

from app.cli.announce import TimeLeft, ready_line, say_ready
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


def test_a_terminal_gets_a_box_whose_commands_can_be_copied() -> None:
    with contextlib.redirect_stdout(Terminal()) as screen:
        say_ready(Config(model_name="m", server=ServerConfig(port=80)))
    top, *lines, bottom = screen.getvalue().splitlines()
    assert "LLM API is ready" in top and len(top) == len(bottom) and set(bottom) == {"─"}
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["page"] == "http://localhost:80" and shown["stop"] == "Ctrl-C"
    assert shown["try"].startswith("curl http://localhost:80/generate ") and shown["chat"].endswith(" chat")


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
