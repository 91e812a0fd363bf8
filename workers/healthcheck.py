"""Check the worker of this host: `python -m workers.healthcheck`, the HEALTHCHECK of the worker's image.

Healthy: the worker has an entry in Redis and is not `failed`. A worker that still downloads or loads its model is
healthy: a restart would only repeat that. `/readyz` shows whether prompts are served. Containers that share a host name
(`network_mode: host`) are not distinguished.
"""

import socket
import sys
from collections.abc import Iterable

import redis

from app.config.loader import load_config
from app.errors import ConfigError, StartupError
from app.jobs.redis_client import connect
from app.jobs.worker_registry import WorkerInfo, WorkerState, read_workers

REPLY_SECONDS = 3.0  # below the time-out of the HEALTHCHECK


def main() -> int:
    """Print one line about the worker; returns 0 if it is healthy, else 1."""
    try:
        workers = list(of_host(_registered(), socket.gethostname()))
    except StartupError as error:
        return _unwell(error.detail)
    except redis.RedisError as error:
        return _unwell(f"no reply from Redis ({type(error).__name__})")
    for worker in workers:
        if worker.state is not WorkerState.FAILED:
            sys.stdout.write(f"{worker.id} is {worker.state}, {worker.running} of {worker.slots} slots taken\n")
            return 0
    return _unwell(workers[-1].detail if workers else "no worker of this host has an entry in Redis")


def of_host(workers: Iterable[WorkerInfo], host: str) -> Iterable[WorkerInfo]:
    """Return the workers whose id (`<host>-<pid>-<random>`, made by `workers.main`) names `host`."""
    return (worker for worker in workers if worker.id.rsplit("-", 2)[0] == host)


def _registered() -> list[WorkerInfo]:
    url = load_config().redis_url
    if url is None:
        raise ConfigError("redis_url is not set; set LLM_API_REDIS_URL")
    return read_workers(connect(url, reply_seconds=REPLY_SECONDS, retries=0))


def _unwell(reason: str) -> int:
    sys.stderr.write(f"unwell: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
