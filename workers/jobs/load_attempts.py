"""Counts the workers that died while they loaded a model, so that a model that ends its worker is not tried for ever.

A file may end the process that loads it: by a fault of a native library, or because the memory is too small. The
program that restarts the worker cannot know that it will die again. So each worker records in Redis that it begins to
load, and removes that when it has loaded or was asked to stop. What a dead process has left behind counts as a failed
attempt.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence

import redis

from app.config.settings import Config
from app.errors import ModelUnavailable, StartupError
from app.jobs import keys
from app.jobs.redis_client import RedisClient

MAX_FAILED_LOADS = 3
KEPT_SECONDS = 86_400


class LoadAttempts:
    """Those at one thing, on one host.

    identity: what distinguishes the thing from others. worker_id: `<host>-<pid>-<random>`. what, fix: for the error.
    """

    def __init__(
        self,
        client: RedisClient,
        identity: Sequence[object],
        worker_id: str,
        *,
        most: int = MAX_FAILED_LOADS,
        what: str = "the model",
        fix: str = "use another file or other model_params, or give the worker more memory",
    ) -> None:
        self._redis = client
        self._worker_id = worker_id
        self._most, self._what, self._fix = most, what, fix
        digest = hashlib.sha256(json.dumps(list(identity), default=str).encode()).hexdigest()[:16]
        self._key = keys.loads(worker_id.rsplit("-", 2)[0], digest)

    @classmethod
    def of_model(cls, client: RedisClient, config: Config, worker_id: str) -> "LoadAttempts":
        """Return those at the model as it is configured."""
        return cls(client, [config.model_family, config.setup_params, config.model_params], worker_id)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Load in the block.

        A load that raises anything but a `StartupError` counts as failed, like one in which the process dies: perhaps
        memory was short, and the next one succeeds.

        Raises:
            ModelUnavailable: `most` workers of this host have failed. The next one may try once more: what
                was wrong may be mended by then.
        """
        self._begin()
        try:
            yield
        except (StartupError, SystemExit, KeyboardInterrupt):  # it says why, or was stopped
            self._forget(self._worker_id)
            raise
        with contextlib.suppress(redis.RedisError):
            self._redis.delete(self._key)

    def _begin(self) -> None:
        dead = self._dead()
        if len(dead) >= self._most:
            self._forget(dead[0])
            raise ModelUnavailable(
                f"{len(dead)} worker{'s have' if len(dead) > 1 else ' has'} died while loading {self._what}: "
                f"the log says how; {self._fix}"
            )
        with contextlib.suppress(redis.RedisError), self._redis.pipeline() as pipe:
            pipe.hset(self._key, self._worker_id, str(time.time()))
            pipe.expire(self._key, KEPT_SECONDS)
            pipe.execute()

    def _dead(self) -> list[str]:
        """Return the workers that began to load and have ended without a word; none where Redis does not respond."""
        try:
            begun = self._redis.hgetall(self._key)
        except redis.RedisError:
            return []
        return [worker_id for worker_id in begun if not _is_running(int(worker_id.rsplit("-", 2)[1]))]

    def _forget(self, worker_id: str) -> None:
        with contextlib.suppress(redis.RedisError), self._redis.pipeline() as pipe:
            pipe.hdel(self._key, worker_id)
            pipe.execute()


def _is_running(pid: int) -> bool:
    """Return whether another process has this id. One with our own was an earlier process of this container."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
