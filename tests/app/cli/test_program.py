"""The program `llm-api`: commands are listed at once and loaded one at a time; the exit status says how it ended."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from app.cli import program
from app.cli.lazy_group import Listed
from app.cli.program import llm_api
from tests.app.cli.command_line import REPOSITORY, environment, refusal, typed
from tests.waiting import scaled

HEAVY = {"celery", "flask", "marshmallow", "redis", "rich", "yaml"}


def test_each_command_that_is_listed_exists_and_says_the_same_of_itself() -> None:
    context = click.Context(llm_api)
    for name in llm_api.list_commands(context):
        command = llm_api.get_command(context, name)
        assert command is not None and command.name == name
        assert command.help and not command.hidden


def test_help_and_completion_load_no_library_beside_click() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom app.cli.program import llm_api\n"
        "print(CliRunner().invoke(llm_api, ['--help']).output, "
        "CliRunner().invoke(llm_api, [], env={'_LLM_API_COMPLETE': 'bash_complete', 'COMP_WORDS': 'llm-api c', "
        "'COMP_CWORD': '1'}, prog_name='llm-api').output)\n"
        f"print(sorted({HEAVY!r} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=scaled(30), check=True
    )
    assert "run           Start everything on this machine" in ran.stdout
    assert "plain,check-config" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


def test_commands_complete_by_their_beginning_with_what_they_do() -> None:
    items = BashComplete(llm_api, {}, "llm-api", "_LLM_API_COMPLETE").get_completions([], "ru")
    assert [(item.value, item.help) for item in items] == [
        ("run", "Start everything on this machine; Ctrl-C stops it.")
    ]


@pytest.mark.parametrize("words", [["rnu"], ["run", "--fast"]])
def test_a_wrong_command_line_ends_with_status_2_and_names_the_help(words: list[str]) -> None:
    ran = typed(*words)
    assert ran.exit_code == 2
    assert "--help' for help." in ran.stderr


def test_config_names_the_file_instead_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model_family: llama\nmodle_name: x\n")
    line = refusal("--config", str(tmp_path / "mine.yaml"), "check-config", environ=environment(tmp_path, 8000))
    assert line.startswith(f"{tmp_path / 'mine.yaml'}: unknown key modle_name")


@pytest.mark.parametrize("command", ["models", "doctor", "run", "check-config", "chat"])
def test_a_configuration_that_is_named_and_missing_is_an_error_in_every_command(tmp_path: Path, command: str) -> None:
    line = refusal("--config", str(tmp_path / "none.yaml"), command, environ=environment(tmp_path, 8000))
    assert line.startswith(f"{tmp_path / 'none.yaml'}: no such file")


def test_a_command_that_cannot_start_does_not_wait_as_a_container_does(tmp_path: Path) -> None:
    environ = environment(tmp_path, 8000, LLM_API_EXIT_DELAY="600", LLM_API_MODEL_PARMS="{}")
    assert "did you mean LLM_API_MODEL_PARAMS?" in refusal("check-config", environ=environ)


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> click.Command:
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Program, "get_command", interrupted)
    assert typed("run").exit_code == 130


def test_the_program_runs_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "app.cli", "check-config", "--help"],
        cwd=REPOSITORY, env=dict(os.environ), capture_output=True, text=True, timeout=scaled(30), check=True,
    )  # fmt: skip
    assert ran.stdout.startswith("Usage: python -m app.cli check-config")


def test_the_script_that_make_installs_works_in_any_folder_and_loads_no_other_app(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    (checkout / ".venv/bin").mkdir(parents=True)
    (elsewhere / "app" / "cli").mkdir(parents=True)
    (elsewhere / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    (checkout / "app").symlink_to(REPOSITORY / "app")
    script = checkout / ".venv/bin/llm-api"
    shutil.copy(REPOSITORY / "deploy/image/llm-api.sh", script)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "llm-api").symlink_to(script)
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    ran = subprocess.run(
        [tmp_path / "llm-api", "jobs", "--help"],
        cwd=elsewhere, env=os.environ | packages, capture_output=True, text=True, timeout=scaled(30), check=True,
    )  # fmt: skip
    assert ran.stdout.startswith("Usage: llm-api jobs")


def test_a_command_whose_code_an_image_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(program._COMMANDS, "run", Listed("app.nowhere.run:run", "Start everything."))
    ran = typed("run")
    assert (ran.exit_code, ran.stderr) == (1, "Error: run is not in this image; use it in the image `api` or `all`\n")
