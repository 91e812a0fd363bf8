"""The programs that `make run` starts."""

from pathlib import Path

from app.cli.programs import programs
from app.config.settings import Config

VALKEY = Path("/some where/valkey-server")


def test_valkey_starts_first_and_the_worker_last(tmp_path: Path) -> None:
    listed = programs(Config(model_name="m", data_dir=tmp_path), VALKEY, 7000)
    assert [program.name for program in listed] == ["valkey", "api", "worker"]


def test_without_an_embedded_valkey_two_programs_run(tmp_path: Path) -> None:
    assert [program.name for program in programs(Config(model_name="m"), None, 0)] == ["api", "worker"]


def test_valkey_listens_on_loopback_only_and_keeps_every_write(tmp_path: Path) -> None:
    command = " ".join(programs(Config(model_name="m", data_dir=tmp_path), VALKEY, 7000)[0].command)
    for option in (
        "--bind 127.0.0.1 --port 7000",
        f"--dir {tmp_path}",
        "--appendonly yes",
        "--maxmemory-policy noeviction",
    ):
        assert option in command
