"""The Redis client of every process: time-outs, retries and the loading of Lua scripts.

redis-py's annotations cover bytes, text, sync and async clients at once. `RedisClient` declares the commands used here
for a synchronous client that decodes its replies.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.client import Pipeline, PubSub
from redis.retry import Retry

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0  # a script of ours takes microseconds; longer means that Redis is stopped or unreachable
RETRIES = 1  # a stale pooled connection is replaced at once; a Redis that is gone is reported, not waited for
CONNECTIONS = 32  # per client; a thousand threads take turns (redis-py's own pool raises at the 101st)
_LUA = Path(__file__).parent / "lua"
_INCLUDE = "-- include: "

StreamEntry = tuple[str, dict[str, str]]
Script = Callable[..., Any]


class RedisClient(Protocol):
    def ping(self) -> bool: ...
    def close(self) -> object: ...
    def pipeline(self, transaction: bool = True) -> Pipeline: ...
    def pubsub(self) -> PubSub: ...
    def execute_command(self, *args: str | int) -> Any: ...
    def script_load(self, script: str) -> str: ...
    def exists(self, *names: str) -> int: ...
    def get(self, name: str) -> str | None: ...
    def set(self, name: str, value: str, ex: int | None = None) -> object: ...
    def delete(self, *names: str) -> int: ...
    def mget(self, keys: Iterable[str]) -> list[str | None]: ...
    def hget(self, name: str, key: str) -> str | None: ...
    def hmget(self, name: str, keys: Sequence[str]) -> list[str | None]: ...
    def hgetall(self, name: str) -> Mapping[str, str]: ...
    def hscan_iter(
        self, name: str, match: str | None = None, count: int | None = None
    ) -> Iterator[tuple[str, str]]: ...
    def scan_iter(self, match: str | None = None, count: int | None = None) -> Iterator[str]: ...
    def smembers(self, name: str) -> Collection[str]: ...
    def srem(self, name: str, *values: str) -> int: ...
    def zrem(self, name: str, *values: str) -> int: ...
    def zcard(self, name: str) -> int: ...
    def zrange(self, name: str, start: int, end: int, desc: bool = False) -> list[str]: ...
    def zrank(self, name: str, value: str) -> int | None: ...
    def zrevrank(self, name: str, value: str) -> int | None: ...
    def lrange(self, name: str, start: int, end: int) -> list[str]: ...
    def brpop(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None: ...
    def zrangebyscore(self, name: str, min: float | str, max: float | str) -> list[str]: ...
    def zrevrangebyscore(
        self, name: str, max: str, min: str, start: int | None = None, num: int | None = None
    ) -> list[str]: ...
    def xrange(self, name: str, min: str = "-", max: str = "+", count: int | None = None) -> list[StreamEntry]: ...


def connect(
    url: str,
    *,
    reply_seconds: float = REPLY_SECONDS,
    retries: int = RETRIES,
    pool: type[redis.BlockingConnectionPool] = redis.BlockingConnectionPool,
    **pool_options: Any,
) -> RedisClient:
    """Return a pooled client that returns texts as `str`. It connects on first use."""
    connections = pool.from_url(
        url,
        decode_responses=True,
        max_connections=CONNECTIONS,
        timeout=reply_seconds,
        socket_connect_timeout=min(CONNECT_SECONDS, reply_seconds),
        socket_timeout=reply_seconds,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), retries),
        **pool_options,
    )
    return cast(RedisClient, redis.Redis.from_pool(connections))


def script(client: RedisClient, name: str) -> Script:
    """Return the Lua script `lua/<name>.lua`. Calling it with `keys` and `args` returns the script's result."""
    return LoadedScript(client, name).run


def _source(name: str, included: set[str] | None = None) -> str:
    """The text of a script; the first line `-- include: <name>` stands for the text of another."""
    included = set() if included is None else included
    if name in included:
        return ""
    included.add(name)
    lines = (_LUA / f"{name}.lua").read_text().splitlines()
    return "\n".join(
        _source(line.removeprefix(_INCLUDE), included) if line.startswith(_INCLUDE) else line for line in lines
    )


class LoadedScript:
    """A Lua script that Redis knows by its digest. A retry may run the script twice, so scripts must be idempotent.

    redis-py's own asks Redis before every pipeline whether it still has the script. This one loads the script when
    Redis reports that it has not (it was restarted), and runs the pipeline again.
    """

    def __init__(self, client: RedisClient, name: str) -> None:
        self._redis = client
        self._source = _source(name)
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()  # Redis' name for a script

    def run(self, *, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run it by itself."""
        command = ("EVALSHA", self._sha, len(keys), *keys, *args)
        try:
            return self._redis.execute_command(*command)
        except redis.exceptions.NoScriptError:
            self._redis.script_load(self._source)
            return self._redis.execute_command(*command)

    def add_to(self, pipe: Pipeline, *, keys: Sequence[str], args: Sequence[str | int]) -> None:
        """Add a call of the script to a pipeline that `execute_pipeline` runs."""
        pipe.evalsha(self._sha, len(keys), *keys, *args)

    def execute_pipeline(self, pipe: Pipeline) -> list[Any]:
        """Run the pipeline, and return its results; those of the script are among them."""
        commands = list(pipe.command_stack)
        try:
            return pipe.execute()
        except redis.exceptions.NoScriptError:
            self._redis.script_load(self._source)
            pipe.command_stack = commands
            return pipe.execute()
