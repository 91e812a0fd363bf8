"""Commands that talk to Redis in the folder of a `llm-api run`, while no run is active."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.preparation import User, user_of
from app.cli.programs import valkey_socket
from app.cli.redis_address import redis_for_command
from app.config.own_command import own_command
from app.config.settings import Config
from app.jobs.redis_client import connect
from tests.app.cli.command_line import REPOSITORY, environment, refusal, typed
from tests.stack import free_port
from tests.waiting import until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of a run that has ended."""
    (tmp_path / "data" / "appendonlydir").mkdir(parents=True)
    return tmp_path / "data"


def test_keys_work_while_no_run_is_active_and_what_they_write_stays(data: Path) -> None:
    environ = environment(data, 1)
    assert typed("keys", "create", "anna", environ=environ).exit_code == 0
    assert not valkey_socket(data).exists() and user_of(data) is User.NONE, "its Valkey has ended"
    assert "anna" in typed("keys", "list", environ=environ).stdout
    assert typed("audit", "export", environ=environ).exit_code == 0
    assert {path.stat().st_mode & 0o077 for path in (data, *data.glob("appendonlydir/*"))} == {0}


def test_where_nothing_has_run_they_say_what_to_start_and_make_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("keys", "list"), ("audit", "export"), ("api",), ("worker",)):
        line = refusal(*words, environ=environment(tmp_path / "data", 1))
        assert f"no `llm-api run`, which starts a Valkey, is active in this folder ({tmp_path})" in line
        assert f"start the service with `{own_command('run')}` (make run), or set LLM_API_REDIS_URL" in line
    assert not (tmp_path / "data").exists()


def test_a_run_and_another_command_are_refused_meanwhile(data: Path) -> None:
    config = Config(model_name="m", data_dir=data)
    with redis_for_command(config) as url:
        assert connect(url).ping()
        for words in (("run",), ("keys", "list")):
            assert "is in use by a command such as `keys`; try again" in refusal(
                *words, environ=environment(data, free_port())
            )
        assert connect(url).ping()


def test_the_valkey_of_a_killed_command_ends_and_keeps_the_folder_until_then(data: Path) -> None:
    code = (
        "import time\nfrom app.cli.redis_address import redis_for_command\nfrom app.config.loader import load_config\n"
        "with redis_for_command(load_config()):\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(data, 1), stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout and command.stdout.readline() == "up\n"
        servers = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        os.kill(int(servers[0]), signal.SIGSTOP)
        command.kill()
    try:
        assert user_of(data) is User.COMMAND, "its Valkey still has the data"
    finally:
        os.kill(int(servers[0]), signal.SIGCONT)
        os.kill(int(servers[0]), signal.SIGTERM)  # as the kernel does where setpriv is installed
    until(lambda: user_of(data) is User.NONE)
    assert typed("keys", "list", environ=environment(data, 1)).exit_code == 0


def test_a_valkey_that_cannot_start_is_one_line_with_its_reason(data: Path) -> None:
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text("no manifest\n")
    line = refusal("keys", "list", environ=environment(data, 1))
    assert line.startswith(f"data_dir: the Valkey of {data} cannot start: ") and "AOF" in line, line
