"""The programs that `make run` runs on one machine, and how long each of them may take to stop."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import Config
from app.errors import ConfigError

WORKER_LEAVE_SECONDS = 10  # beyond `worker.drain_seconds`: to hand back its jobs and free the model
API_GRACE_SECONDS = 15  # above gunicorn's graceful_timeout
VALKEY_GRACE_SECONDS = 60  # it flushes its append-only file
# Values, and pieces of lists, from this size on get pages of their own, which go back to the system with them. The C
# library would raise the limit to 32 MB, and let what is smaller grow in the spare room of its heap (MALLOC_TOP_PAD_).
# Without this, 52 long prompts that were deleted left 40 MB behind, and 480 MB of files 480 MB; now it is 3 MB.
_OWN_PAGES_BYTES = 8_192
API_COMMAND = [sys.executable, "-m", "gunicorn", "-c", "python:app.server.gunicorn_settings", "app.server.wsgi:app"]
WORKER_COMMAND = [sys.executable, "-m", "workers.main"]
_OWNER_ONLY = 0o077
_MEMORY_SHARE = 4  # of the machine: the model needs the most, and writing the file anew may take as much again
_LONGEST_SOCKET_PATH = 107  # bytes, of Linux
_OVERCOMMIT = "Memory overcommit must be enabled"  # about forks for snapshots, at each start; docs/operations.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program under supervision.

    grace_seconds: From SIGTERM until it is killed.
    hurry_signal: Ends it at once, without a loss: after a second Ctrl-C. None: SIGTERM does, and it keeps its grace.
    muted: Lines with one of these texts are not shown.
    umask: Which rights the files that it makes do not have; -1: as of the supervisor.
    """

    name: str
    command: Sequence[str]
    grace_seconds: int = 5
    hurry_signal: signal.Signals | None = None
    muted: Sequence[str] = ()
    umask: int = -1


def programs(config: Config, valkey: Path | None) -> list[Program]:
    """List the programs in the order in which they start.

    Args:
        valkey: The server's binary, or None where `redis_url` names another Redis.
    """
    api = Program(
        name="api",
        command=API_COMMAND,
        grace_seconds=API_GRACE_SECONDS,
        hurry_signal=signal.SIGQUIT,  # gunicorn: do not wait for responses
    )
    worker = Program(
        name="worker",
        command=WORKER_COMMAND,
        grace_seconds=config.worker.drain_seconds + WORKER_LEAVE_SECONDS,
        hurry_signal=signal.SIGUSR2,  # workers.main: hand back the running jobs
    )
    if valkey is None:
        return [api, worker]
    return [valkey_program(config, valkey), api, worker]


def valkey_program(config: Config, binary: Path) -> Program:
    """Return the Valkey of the data folder."""
    return Program(
        name="valkey",
        command=valkey_command(binary, config.data_dir),
        grace_seconds=VALKEY_GRACE_SECONDS,
        muted=[_OVERCOMMIT],
        umask=_OWNER_ONLY,
    )


def valkey_socket(data_dir: Path) -> Path:
    """Return where the embedded Valkey listens. Raises ConfigError if the path is too long for a socket."""
    path = data_dir.resolve() / "valkey.sock"
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        longest = _LONGEST_SOCKET_PATH - len("/valkey.sock")
        raise ConfigError(f"data_dir: {data_dir.resolve()} is longer than {longest} bytes; set a shorter one")
    return path


def valkey_command(binary: Path, data_dir: Path) -> list[str]:
    """Listen on a socket that only this user may use, append every write to a file, and evict nothing: the data are
    accepted jobs. What is beyond its share of the memory is rejected, before the machine has none left.
    """
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [
        *("env", f"MALLOC_MMAP_THRESHOLD_={_OWN_PAGES_BYTES}", "MALLOC_TOP_PAD_=0"),
        *(str(binary), "--port", "0", "--unixsocket", str(valkey_socket(data_dir)), "--unixsocketperm", "600"),
        *("--dir", str(data_dir.resolve()), "--appendonly", "yes", "--save", ""),
        *(
            "--maxmemory",
            str(memory_bytes // _MEMORY_SHARE),
            "--maxmemory-policy",
            "noeviction",
            "--loglevel",
            "warning",
        ),
        *("--hz", "1"),  # a tenth of Valkey's default: what it looks after so often are keys that expire
        *("--list-max-listpack-size", "-5"),  # the lines of files are in pieces of 64 KB
    ]
