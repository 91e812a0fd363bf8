"""Redis and the workers that it knows, as the doctor looks at them."""

import time
from collections.abc import Iterator
from typing import Any

import redis

from app.cli.preparation import valkey_binary
from app.cli.redis_address import no_redis
from app.config.finding import Finding, fault, ok, warning
from app.config.own_command import own_command
from app.config.settings import Config
from app.errors import ConfigError
from app.jobs.redis_client import RedisClient, connect
from app.jobs.version import service_version
from app.jobs.worker_registry import WorkerInfo, WorkerState, connected_workers, read_workers

REPLY_SECONDS = 3.0
_SLOW_SECONDS = 0.05
_PINGS = 5  # the fastest tells the network from a machine that is busy for a moment
_NEARLY_FULL = 0.9
_CHECK = "redis"


def check_redis(config: Config) -> Iterator[Finding]:
    """config: with the address of an embedded Valkey, if one runs."""
    if config.redis_url is None:
        yield _embedded()
        return
    client = connect(config.redis_url, reply_seconds=REPLY_SECONDS, retries=0)
    try:
        info: dict[str, Any] = client.execute_command("INFO")
        seconds = min(_ping_seconds(client) for _ in range(_PINGS))
    except redis.exceptions.RedisError as error:
        yield _unreachable(error)
        return
    finally:
        client.close()
    faults = list(_faults(info))
    yield from faults
    if not faults:
        yield ok(_CHECK, f"{_name(info)} responds in {seconds * 1000:.1f} ms and keeps its data on disk")
    if seconds > _SLOW_SECONDS:
        cure = "put Redis, API and workers into one network; each token needs several replies"
        yield warning(_CHECK, f"Redis takes {seconds * 1000:.0f} ms to respond", cure)


def _ping_seconds(client: RedisClient) -> float:
    started = time.monotonic()
    client.ping()
    return time.monotonic() - started


def check_workers(config: Config) -> Iterator[Finding]:
    if config.redis_url is None:
        return
    client = connect(config.redis_url, reply_seconds=REPLY_SECONDS, retries=0)
    try:
        workers = read_workers(client)
        yield from _workers(config, client, workers)
    except redis.exceptions.RedisError:
        return  # check_redis says it
    finally:
        client.close()


def _embedded() -> Finding:
    try:
        valkey_binary()
    except ConfigError as error:
        return fault(_CHECK, error.detail)
    return warning(_CHECK, *no_redis())


def _unreachable(error: redis.exceptions.RedisError) -> Finding:
    """An error's own text may hold the address, and with it a password."""
    refused = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
    if isinstance(error, (*refused, redis.exceptions.NoPermissionError)):
        cure = "correct user and password in redis_url (LLM_API_REDIS_URL), or the rights of that user"
        return fault(_CHECK, "Redis rejects the user of redis_url", cure)
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return warning(_CHECK, "Redis has just started and is loading its data", "wait for it")
    reason = type(error).__name__
    cure = "start Redis, or correct redis_url (LLM_API_REDIS_URL); from a container localhost is the container"
    return fault(_CHECK, f"Redis does not respond at redis_url ({reason})", cure)


def _faults(info: dict[str, Any]) -> Iterator[Finding]:
    policy, limit, used = info.get("maxmemory_policy"), int(info.get("maxmemory", 0)), int(info["used_memory"])
    if policy != "noeviction":
        cure = "set maxmemory-policy noeviction in the configuration of Redis (CONFIG SET does it at once)"
        text = f"maxmemory-policy is {policy}: a full Redis deletes accepted jobs, where noeviction rejects new ones"
        yield fault(_CHECK, text, cure)
    if limit and used >= _NEARLY_FULL * limit:
        text = f"Redis uses {used / 1e6:.0f} of {limit / 1e6:.0f} MB (maxmemory)"
        cure = "raise maxmemory, lower jobs.ttl or files.ttl, or delete finished jobs (DELETE /jobs/ID)"
        is_full = used >= limit
        yield (fault if is_full else warning)(_CHECK, text + (" and rejects every new job" if is_full else ""), cure)
    if info.get("role") != "master":
        yield fault(_CHECK, "Redis is a replica and accepts no writes", "name the primary in redis_url")
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        yield fault(
            _CHECK, "Redis cannot write to its disk", "free space there, or repair it; its log says what failed"
        )
    if not int(info.get("aof_enabled", 0)):
        cure = "set appendonly yes in the configuration of Redis (CONFIG SET appendonly yes)"
        yield warning(_CHECK, "Redis does not append its writes to a file: a restart loses accepted jobs", cure)


def _name(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _workers(config: Config, client: RedisClient, workers: list[WorkerInfo]) -> Iterator[Finding]:
    own = [worker for worker in workers if worker.model == config.model_name]
    ready = connected_workers(client, [worker for worker in own if worker.state is WorkerState.READY])
    for worker in own:
        yield from _worker(worker, is_connected=worker in ready or worker.state is not WorkerState.READY)
    others = sorted({worker.model for worker in workers} - {config.model_name})
    if not own and others:
        cure = "give API and workers the same configuration, or set model_name in it"
        yield fault("workers", f"no worker serves {config.model_name}; workers serve {', '.join(others)}", cure)
    elif not own:
        cure = f"start one: `{own_command('worker')}`, or `{own_command('run')}`"
        yield fault("workers", f"no worker serves {config.model_name}", cure)


def _worker(worker: WorkerInfo, *, is_connected: bool) -> Iterator[Finding]:
    name = f"worker {worker.id}"
    if worker.state is WorkerState.FAILED:
        yield fault(
            "workers",
            f"{name} gave up: {worker.detail}",
            f"correct that, then start it again: `{own_command('run')}`, or `{own_command('worker')}`",
        )
    elif worker.state is WorkerState.STALLED:
        yield fault(
            "workers", f"{name} stands still: {worker.detail}", "restart it; its jobs continue at another worker"
        )
    elif not is_connected:
        cure = "see whether its process still runs; if so, its network to Redis is at fault"
        yield fault("workers", f"{name} has no connection to Redis", cure)
    else:
        progress = "" if worker.progress is None else f" {worker.progress:.0%}"
        yield ok("workers", f"{name} is {worker.state}{progress}: {worker.running} of {worker.slots} slots in use")
    if worker.state is not WorkerState.FAILED and worker.version != service_version():
        theirs = worker.version or "an older version"
        cure = "restart API and workers from the same version: they share records and scripts"
        yield fault("workers", f"{name} runs {theirs}, this is {service_version()}", cure)
