"""Where Redis is for commands beside `llm-api run`: at `redis_url`, or the embedded Valkey of the data folder."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import quote

import redis

from app.cli.preparation import User, sole_use_of, user_of, valkey_binary
from app.cli.programs import valkey_program, valkey_socket
from app.cli.supervisor import die_with_parent
from app.config.own_command import own_command
from app.config.settings import Config
from app.config.variables import variable_name
from app.errors import ConfigError
from app.jobs.redis_client import connect

_POLL_SECONDS = 0.02


def use_redis_of_run(config: Config) -> Config:
    """Return the configuration with an address of Redis, if there is one, and name it to programs that are started."""
    if config.redis_url is not None or not valkey_socket(config.data_dir).is_socket():
        return config
    url = embedded_redis_url(config)
    os.environ[variable_name("redis_url")] = url
    return replace(config, redis_url=url)


def embedded_redis_url(config: Config) -> str:
    """Return the address of the Valkey that `llm-api run` starts. Raises ConfigError if its path is too long."""
    return f"unix://{quote(str(valkey_socket(config.data_dir)))}"


def no_redis() -> tuple[str, str]:
    """Return the fault of a folder without `redis_url` and without a run, and its cure."""
    text = f"redis_url is not set, and no `llm-api run`, which starts a Valkey, is active in this folder ({Path.cwd()})"
    return text, f"start the service with `{own_command('run')}` (make run), or set {variable_name('redis_url')}"


@contextlib.contextmanager
def redis_for_command(config: Config) -> Iterator[str]:
    """Give the address of Redis. Where no run is active, the Valkey of its data folder runs as long as the context.

    Raises:
        ConfigError: nothing has run here, or another command has just started that Valkey.
    """
    url = config.redis_url or embedded_redis_url(config)
    if config.redis_url or user_of(config.data_dir) is User.RUN:
        yield url
    elif not (config.data_dir / "appendonlydir").is_dir():  # the name is Valkey's
        raise ConfigError("; ".join(no_redis()))
    else:
        with sole_use_of(config.data_dir, url="") as lock:
            if _responds(url):  # its run was killed, and it was not
                yield url
            else:
                with _running_valkey(config, url, lock):
                    yield url


@contextlib.contextmanager
def _running_valkey(config: Config, url: str, lock: IO[str]) -> Iterator[None]:
    """Start the Valkey as `llm-api run` does. It holds the lock too, so no other starts before it has ended."""
    program = valkey_program(config, valkey_binary())
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            [*die_with_parent(), *program.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            umask=program.umask,
            process_group=0,  # so that Ctrl-C reaches this command alone, which stops it
            pass_fds=[lock.fileno()],
        )
        try:
            while not _responds(url):
                if process.poll() is not None:
                    output.seek(0)
                    *_, reason = filter(str.strip, [f"status {process.returncode}", *output])
                    raise ConfigError(f"data_dir: the Valkey of {config.data_dir} cannot start: {reason.strip()}")
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait()


def _responds(url: str) -> bool:
    """Return False also while it loads its data."""
    client = connect(url, retries=0)
    try:
        return client.ping()
    except redis.RedisError:
        return False
    finally:
        client.close()
