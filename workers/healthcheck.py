"""Check the worker of this host: `python -m workers.healthcheck`, the HEALTHCHECK of the worker's image.

A worker is well while it announces itself in Redis and has not given up. One that still fetches or loads its model is
well: a restart would only begin that again. Whether prompts are served is what `/readyz` shows. Workers are found by
their host's name, so two containers that share one (`network_mode: host`) count for each other.
"""

import socket
import sys
from collections.abc import Iterable

import redis

from app.config.loader import load_config
from app.errors import ConfigError, StartupError
from app.jobs.redis_client import connect
from app.jobs.worker_registry import WorkerInfo, WorkerState, read_workers

ANSWER_SECONDS = 3.0  # below the time-out of the HEALTHCHECK


def main() -> int:
    """Print one line about the worker; returns 0 when it is well, else 1."""
    try:
        workers = list(of_host(_registered(), socket.gethostname()))
    except StartupError as error:
        return _unwell(error.detail)
    except redis.RedisError as error:
        return _unwell(f"no answer from Redis ({type(error).__name__})")
    for worker in workers:
        if worker.state is not WorkerState.FAILED:
            sys.stdout.write(f"{worker.id} is {worker.state}, {worker.running} of {worker.slots} slots taken\n")
            return 0
    return _unwell(workers[-1].detail if workers else "no worker of this host announces itself")


def of_host(workers: Iterable[WorkerInfo], host: str) -> Iterable[WorkerInfo]:
    """Return those whose id, `<host>-<pid>-<random>` as `workers.main` makes it, names `host`."""
    return (worker for worker in workers if worker.id.rsplit("-", 2)[0] == host)


def _registered() -> list[WorkerInfo]:
    url = load_config().redis_url
    if url is None:
        raise ConfigError("redis_url is not set; set LLM_API_REDIS_URL")
    return read_workers(connect(url, reply_seconds=ANSWER_SECONDS, retries=0))


def _unwell(reason: str) -> int:
    sys.stderr.write(f"unwell: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
