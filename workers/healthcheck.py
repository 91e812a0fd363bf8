"""Check the worker of this host: `python -m workers.healthcheck`, the HEALTHCHECK of the worker's image.

Healthy: the worker has an entry in Redis and is neither `failed` nor `stalled`. A worker that still downloads or loads
its model is healthy: a restart would only repeat that. `/readyz` shows whether prompts are served. Containers that
share a host name (`network_mode: host`) are not distinguished.
"""

import socket
import sys

import redis

from app.config.loader import load_config, redis_url_of
from app.errors import StartupError
from app.jobs.redis_client import connect
from app.jobs.worker_registry import WorkerInfo, WorkerState, read_workers

REPLY_SECONDS = 3.0  # below the time-out of the HEALTHCHECK


def main() -> int:
    """Print one line about the worker; returns 0 if it is healthy, else 1."""
    try:
        workers = [worker for worker in _registered() if worker.host == socket.gethostname()]
    except StartupError as error:
        return _unwell(error.detail)
    except redis.RedisError as error:
        return _unwell(f"no reply from Redis ({type(error).__name__})")
    for worker in workers:
        if worker.state not in (WorkerState.FAILED, WorkerState.STALLED):
            sys.stdout.write(f"{worker.id} is {worker.state}, {worker.running} of {worker.slots} slots taken\n")
            return 0
    return _unwell(workers[-1].detail if workers else "no worker of this host has an entry in Redis")


def _registered() -> list[WorkerInfo]:
    return read_workers(connect(redis_url_of(load_config()), reply_seconds=REPLY_SECONDS, retries=0))


def _unwell(reason: str) -> int:
    sys.stderr.write(f"unwell: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
