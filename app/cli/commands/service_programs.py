"""`llm-api api` and `llm-api worker`: one program of the service in this terminal, as the images start it."""

import os
import sys
from importlib.util import find_spec

import click

from app.cli.programs import API_COMMAND, WORKER_COMMAND
from app.cli.redis_address import no_redis, use_redis_of_run
from app.config.loader import load_config
from app.errors import ConfigError


@click.command
def api() -> None:
    """Start the API: gunicorn, until Ctrl-C. It uses the Redis of redis_url, or the one of a `llm-api run`."""
    _become(API_COMMAND, "app.server", "the image `api` or `all`")


@click.command
def worker() -> None:
    """Start a worker, until Ctrl-C. It uses the Redis of redis_url, or the one of a `llm-api run`.

    Beside `llm-api run` it is a second worker: the model is loaded once more.
    """
    _become(WORKER_COMMAND, "workers", "the image `worker`")


def _become(command: list[str], package: str, where: str) -> None:
    """Replace this process by the program. Raises ConfigError."""
    if find_spec(package) is None:
        raise ConfigError(f"this program is not installed here; use {where}")
    if use_redis_of_run(load_config()).redis_url is None:
        raise ConfigError("; ".join(no_redis()))
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - the commands are ours
