"""The programs that `make run` runs on one machine, and how long each of them may take to stop."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import Config

WORKER_LEAVE_SECONDS = 10  # beyond `worker.drain_seconds`: to hand back its jobs and free the model
API_GRACE_SECONDS = 15  # above gunicorn's graceful_timeout
VALKEY_GRACE_SECONDS = 60  # it flushes its append-only file


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program under supervision. `grace_seconds`: from SIGTERM until it is killed."""

    name: str
    command: Sequence[str]
    grace_seconds: int = 5


def programs(config: Config, valkey: Path | None, valkey_port: int) -> list[Program]:
    """List the programs in the order in which they start.

    Args:
        valkey: The server's binary, or None where `redis_url` names another Redis.
        valkey_port: The port on which that server listens.
    """
    python = sys.executable
    gunicorn = [python, "-m", "gunicorn", "-c", "python:app.server.gunicorn_settings", "app.server.wsgi:app"]
    api = Program(name="api", command=gunicorn, grace_seconds=API_GRACE_SECONDS)
    worker = Program(
        name="worker",
        command=[python, "-m", "workers.main"],
        grace_seconds=config.worker.drain_seconds + WORKER_LEAVE_SECONDS,
    )
    if valkey is None:
        return [api, worker]
    command = valkey_command(valkey, valkey_port, config.data_dir)
    return [Program(name="valkey", command=command, grace_seconds=VALKEY_GRACE_SECONDS), api, worker]


def valkey_command(binary: Path, port: int, data_dir: Path) -> list[str]:
    """Listen on loopback only, append every write to a file, and evict nothing: the data are accepted jobs."""
    return [
        *(str(binary), "--bind", "127.0.0.1", "--port", str(port), "--protected-mode", "yes"),
        *("--dir", str(data_dir.resolve()), "--appendonly", "yes", "--save", ""),
        *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
    ]
