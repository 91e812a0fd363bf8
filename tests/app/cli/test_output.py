"""Tables and JSON as a terminal, a pipe and `NO_COLOR` get them."""

import json

import pytest

from app.cli.output import console, write_json, write_table


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
