"""Tokenizer calls: any worker of a model serves them beside its jobs, without a slot.

A call waits in a list until a worker takes it. Its reply comes through a list of its own. Both expire after 30 s. A
call whose worker dies gets no reply, and its client gets 503.
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from app.errors import NoWorker, error_from_code
from app.jobs import keys
from app.jobs.job import JobError
from app.jobs.packed_tokens import pack, unpack
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import no_worker

REPLY_SECONDS = 10.0  # to wait for a reply; then the worker is slow or loading, or has died
RETRY_SECONDS = 5  # in which a worker may start
KEPT_SECONDS = 30  # how long a call or a reply is kept that no process takes
BLOCKED_SECONDS = 2.0  # in one command, below the client's own time-out


class TokenizerOperation(StrEnum):
    TOKENIZE = "tokenize"  # {"text" or "chat", "add_special"} -> [token, ...], which are packed in Redis
    DETOKENIZE = "detokenize"  # {"tokens"} -> text


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerCall:
    """called_at: Unix seconds, by the caller's clock."""

    id: str
    operation: TokenizerOperation
    arguments: dict[str, Any]
    called_at: float

    @property
    def is_stale(self) -> bool:
        """Whether the caller has certainly stopped waiting: well past `REPLY_SECONDS`, as clocks may differ."""
        return time.time() - self.called_at > KEPT_SECONDS


class TokenizerClient:
    """The caller's side. client: for these calls alone, because each call blocks a connection."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._redis = client
        self._model = model

    def call(self, operation: TokenizerOperation, arguments: Mapping[str, Any]) -> Any:
        """Return the result that a worker computes. Raises NoWorker, and the error that the worker raised."""
        if not self._redis.exists(keys.alive(self._model)):
            raise no_worker(self._redis, self._model, retry_after_seconds=RETRY_SECONDS)
        call_id = uuid.uuid4().hex
        call = {"id": call_id, "operation": operation, "arguments": arguments, "called_at": time.time()}
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.calls(self._model), json.dumps(call))
            pipe.expire(keys.calls(self._model), KEPT_SECONDS)
            pipe.execute()
        received = self._wait(call_id)
        if received.get("error"):
            error = JobError(**received["error"])
            raise error_from_code(error.code, error.message, error.errors)
        return unpack(received["result"]) if operation is TokenizerOperation.TOKENIZE else received["result"]

    def _wait(self, call_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + REPLY_SECONDS
        while time.monotonic() < deadline:
            entry = self._redis.brpop([keys.reply(call_id)], timeout=BLOCKED_SECONDS)
            if entry is not None:
                received: dict[str, Any] = json.loads(entry[1])
                return received
        raise NoWorker(
            "no worker has answered: it still loads its model, is busy, or is gone", retry_after_seconds=RETRY_SECONDS
        )


def next_call(client: RedisClient, model: str, seconds: float) -> TokenizerCall | None:
    """For a worker: return the oldest call, or None when none came within `seconds`."""
    entry = client.brpop([keys.calls(model)], timeout=seconds)
    if entry is None:
        return None
    call = json.loads(entry[1])
    return TokenizerCall(**{**call, "operation": TokenizerOperation(call["operation"])})


def reply(client: RedisClient, call: TokenizerCall, result: Any = None, error: JobError | None = None) -> None:
    """For a worker: send the result of a call, or the error that it ended with."""
    if error is None and call.operation is TokenizerOperation.TOKENIZE:
        result = pack(result)
    body = {"result": result} if error is None else {"error": asdict(error)}
    with client.pipeline(transaction=False) as pipe:
        pipe.lpush(keys.reply(call.id), json.dumps(body))
        pipe.expire(keys.reply(call.id), KEPT_SECONDS)
        pipe.execute()
