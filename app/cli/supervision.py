"""What `make run` runs and how, written as supervisord's configuration. Pure: text in, text out."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import Config

CONFIGURATION_FAULT = 78  # EX_CONFIG of sysexits.h: a restart cannot cure it
WORKER_LEAVE_SECONDS = 10  # beyond `worker.drain_seconds`: to hand back its jobs and free the model
API_GRACE_SECONDS = 15  # above gunicorn's graceful_timeout
VALKEY_GRACE_SECONDS = 60  # it flushes its append-only file

_STEADY_SECONDS = 10  # up this long counts as started: a death before it backs off, one after it restarts at once
_NEVER_GIVE_UP = 1_000_000

_HEAD = """\
[supervisord]
nodaemon=true
loglevel=error
logfile=/dev/null
logfile_maxbytes=0
nocleanup=true
minprocs=1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program under supervision.

    `order`: the lowest starts first and stops last. `restarts`: whether its end is a death, cured by a new start;
    else it may end as it likes.
    """

    name: str
    command: Sequence[str]
    order: int
    grace_seconds: int = 5
    restarts: bool = True


def programs(config: Config, valkey: Path | None, valkey_port: int) -> list[Program]:
    """The programs of one machine. `valkey` is the server's binary, None where `redis_url` names another Redis."""
    python = sys.executable
    gunicorn = [python, "-m", "gunicorn", "-c", "python:app.server.gunicorn_settings", "app.server.wsgi:app"]
    found = [
        Program(name="api", command=gunicorn, order=20, grace_seconds=API_GRACE_SECONDS),
        Program(
            name="worker",
            command=[python, "-m", "workers.main"],
            order=30,
            grace_seconds=config.worker.drain_seconds + WORKER_LEAVE_SECONDS,
        ),
        Program(name="llm-api", command=[python, "-m", "app.cli.announce"], order=40, restarts=False),
    ]
    if valkey:
        command = valkey_command(valkey, valkey_port, config.data_dir)
        found.insert(0, Program(name="valkey", command=command, order=10, grace_seconds=VALKEY_GRACE_SECONDS))
    return found


def valkey_command(binary: Path, port: int, data_dir: Path) -> list[str]:
    """Loopback only, every write in the append-only file, and never an eviction: what it holds are promises."""
    return [
        *(str(binary), "--bind", "127.0.0.1", "--port", str(port), "--protected-mode", "yes"),
        *("--dir", str(data_dir.resolve()), "--appendonly", "yes", "--save", ""),
        *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
    ]


def supervisor_config(
    programs: Sequence[Program],
    *,
    pid_file: Path,
    min_open_files: int,
    as_root: bool = False,
    launcher: Sequence[str] = (),
) -> str:
    """supervisord's configuration file for `programs`.

    Args:
        launcher: stands before each command, for example `setpriv --pdeathsig TERM`.
        as_root: says to supervisord that running as root is meant, so that it does not warn.
    """
    head = f"{_HEAD}pidfile={_literal(str(pid_file))}\nminfds={min_open_files}\n{'user=root' if as_root else ''}\n"
    return head + "".join(_section(program, launcher) for program in programs)


def _section(program: Program, launcher: Sequence[str]) -> str:
    return f"""
[program:{program.name}]
command={_literal(shlex.join([*launcher, *program.command]))}
priority={program.order}
autorestart={"unexpected" if program.restarts else "false"}
exitcodes={CONFIGURATION_FAULT if program.restarts else 0}
startsecs={_STEADY_SECONDS if program.restarts else 0}
startretries={_NEVER_GIVE_UP}
stopwaitsecs={program.grace_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=NONE
stdout_events_enabled=true
"""


def _literal(value: str) -> str:
    return value.replace("%", "%%")  # supervisord expands %(name)s
