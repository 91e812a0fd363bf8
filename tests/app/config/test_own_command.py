"""How messages name the program: as the shell of their reader finds it."""

import sys
from pathlib import Path

import pytest

from app.config.own_command import own_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a virtual environment of its own, and no `llm-api` on PATH."""
    (bin_folder := tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "llm-api"):
        (bin_folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_on_path_is_typed_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder / ".venv" / "bin"))
    assert own_command("run") == "llm-api run"


def test_any_other_is_typed_by_its_path_from_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_command("keys list") == ".venv/bin/llm-api keys list"
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert own_command("keys list") == f"{folder}/.venv/bin/llm-api keys list"


def test_without_its_script_it_is_typed_as_a_module_of_this_python(folder: Path) -> None:
    (folder / ".venv" / "bin" / "llm-api").unlink()
    assert own_command("run") == ".venv/bin/python -m app.cli run"
