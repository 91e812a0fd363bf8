"""What `run` refuses in one line before it starts anything."""

import fcntl
import json
import os
import re
import socket
from pathlib import Path

import pytest

from app.cli.preparation import sole_use_of
from app.config.addresses import addresses_of
from tests.app.cli.command_line import environment, refusal
from tests.stack import free_port


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_faulty_configuration_is_one_line_and_starts_nothing(tmp_path: Path, command: str) -> None:
    line = refusal(command, environ=environment(tmp_path / "data", 8000, LLM_API_MODEL_PARMS="{}"))
    assert "did you mean LLM_API_MODEL_PARAMS?" in line
    assert not (tmp_path / "data").exists()


def test_a_second_run_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("http://localhost:8000")
        lock.flush()
        assert "is in use by another run" in refusal("run", environ=environment(tmp_path, free_port()))


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = refusal("run", environ=environment(tmp_path / "data", other.getsockname()[1]))
    assert not (tmp_path / "data").exists(), "nothing is left behind"
    assert "cannot listen on 127.0.0.1" in line
    assert f"is taken by process {os.getpid()}, " in line
    assert re.search(r"choose another port: LLM_API_PORT=\d+ make run$", line)


@pytest.mark.skipif(not addresses_of("localhost")[1:], reason="this machine has no IPv6")
def test_a_port_in_use_on_the_other_family_of_localhost_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        server = json.dumps({"host": "0.0.0.0", "port": other.getsockname()[1]})
        line = refusal("run", environ=environment(tmp_path, 0, LLM_API_SERVER=server))
    assert "cannot listen on [::1]:" in line


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "data_dir: cannot write in" in refusal("run", environ=environment(tmp_path / "file" / "data", free_port()))


def test_a_data_folder_of_an_earlier_run_is_closed_to_other_users(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (file := data / "appendonlydir" / "jobs.aof").touch()
    for path in (data, file.parent, file):
        path.chmod(0o755)
    with sole_use_of(data, "http://localhost:8000"):
        pass
    assert [path.stat().st_mode & 0o777 for path in (data, file.parent, file)] == [0o700] * 3
