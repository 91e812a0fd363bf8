"""Tables and JSON as a terminal, a pipe and `NO_COLOR` get them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from app.cli.output import console, time_or_day, write_json, write_table


def test_a_table_in_a_pipe_has_whole_lines_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(["NAME", "#TOKENS"], [["a" * 200, 7], ["[red]b", None], ["\x1b[31mc\nd", 12]])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [["NAME", "TOKENS"], ["a" * 200, "7"], ["[red]b"]]
    assert lines[1].rstrip().endswith("7") and len(lines[1].rstrip()) == len(lines[0].rstrip()), "numbers stand right"
    assert "\x1b" not in "".join(lines), "a text of another cannot write to the terminal as it likes"


def test_no_color_is_respected_where_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console().color_system is not None
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color


def test_json_keeps_the_letters_of_other_languages(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"text": "Grüße"})
    assert "Grüße" in (out := capsys.readouterr().out)
    assert json.loads(out) == {"text": "Grüße"}


@pytest.mark.parametrize("width", [30, 80])
def test_a_table_that_a_terminal_is_too_narrow_for_is_printed_row_by_row_and_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("app.cli.output.console", lambda: Console(width=width))
    write_table(["ID", "#TOKENS", "#PLACE", "~ERROR"], [["a" * 18, 7, None, None], ["b" * 18, 12, None, "some words"]])
    out = capsys.readouterr().out
    assert "a" * 18 in out and "b" * 18 in out and "place" not in out.lower(), "nothing is in this column"
    if width == 30:
        assert out == f"id      {'a' * 18}\ntokens  7\n\nid      {'b' * 18}\ntokens  12\nerror   some words\n"
    else:
        assert out.splitlines()[0].split() == ["ID", "TOKENS", "ERROR"]


def test_a_long_text_is_wrapped_and_keeps_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.output.console", lambda: Console(width=40))
    write_table(["KEY", "~VALUE"], [["a.key", "word " * 20]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KEY", "VALUE"] and len(lines) > 3 and max(map(len, lines)) <= 40


def test_an_empty_table_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(["ID", "#PLACE"], [], empty="there are no jobs")
    assert capsys.readouterr() == ("", "there are no jobs\n")


def test_today_is_a_time_and_another_day_a_day() -> None:
    now = datetime.now(UTC)
    assert time_or_day(now).count(":") == 2
    assert time_or_day(now - timedelta(3)).count("-") == 2
