"""The LoRA adapters of run time: the API registers them in Redis, and every worker of the model loads them.

An adapter is registered first, and served when the workers have loaded it: from then on requests may choose it. Each
has a version of its own, so that what is computed with it is never taken for another one of the same name.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import InvalidRequest
from app.jobs import keys
from app.jobs.redis_client import RedisClient, script

LOAD_SECONDS = 300  # that a load may take; one that takes longer, or whose API process died, is abandoned
MOST_ADAPTERS = 256
CONTROL_VERB = "adapters"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAdapter:
    """source: a path in `models_dir` or a repository, as the client named it. added_at: Unix seconds."""

    name: str
    source: str
    version: str
    added_at: float


class AdapterRegistry:
    """The adapters of one model."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._redis = client
        self._message = f"{CONTROL_VERB}:{model}"
        self._keys = [keys.adapters(model), keys.served_adapters(model)]
        self._add = script(client, "add_adapter")
        self._serve = script(client, "serve_adapter")
        self._remove = script(client, "remove_adapter")

    def all(self) -> list[RegisteredAdapter]:
        """Return what workers are to have: what is served, and what is being loaded. Oldest first."""
        return _adapters(self._redis.hgetall(self._keys[0]))

    def served(self) -> list[RegisteredAdapter]:
        """Return what requests may choose, oldest first."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key in self._keys:
                pipe.hgetall(key)
            registered, served = pipe.execute()
        versions = set(served.values())
        return [adapter for adapter in _adapters(registered) if adapter.version in versions]

    def find(self, name: str) -> RegisteredAdapter | None:
        """Return the served adapter of this name."""
        version = self._redis.hget(self._keys[1], name)
        fields = None if version is None else self._redis.hget(self._keys[0], version)
        return None if version is None or fields is None else _adapter(version, fields)

    def add(self, name: str, source: str, *, replaces: bool) -> str:
        """Have the workers load an adapter. Returns its version.

        Raises InvalidRequest: it has been loaded, or there are too many.
        """
        version = secrets.token_hex(8)
        verdict = self._add(
            keys=self._keys,
            args=[version, name, source, int(replaces), MOST_ADAPTERS, LOAD_SECONDS, *self._call_workers],
        )
        if verdict == "full":
            reason = f"there are {MOST_ADAPTERS} adapters, which is the most; unload one first"
            raise InvalidRequest(reason, errors={"lora_name": [reason]})
        self._reject_loaded(verdict, name)
        return version

    def serve(self, name: str, version: str, *, replaces: bool) -> None:
        """Let requests choose an adapter that workers have loaded. Raises InvalidRequest: another call was faster."""
        verdict = self._serve(keys=self._keys, args=[version, name, int(replaces), *self._call_workers])
        if verdict == "gone":
            reason = f"The load of the lora adapter {name!r} took longer than {LOAD_SECONDS} s, and was abandoned."
            raise InvalidRequest(reason, errors={"lora_name": [reason]})
        self._reject_loaded(verdict, name)

    def remove(self, name: str, version: str) -> None:
        """Have the workers unload an adapter."""
        self._remove(keys=self._keys, args=[version, name, *self._call_workers])

    @property
    def _call_workers(self) -> tuple[str, str]:
        return keys.CONTROL_CHANNEL, self._message

    @staticmethod
    def _reject_loaded(verdict: str, name: str) -> None:
        if verdict == "loaded":  # vLLM's words
            reason = (
                f"The lora adapter {name!r} has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True."
            )
            raise InvalidRequest(reason, errors={"lora_name": [reason]})


def _adapters(registered: Mapping[str, str]) -> list[RegisteredAdapter]:
    adapters = [_adapter(version, fields) for version, fields in registered.items()]
    return sorted(adapters, key=lambda adapter: (adapter.added_at, adapter.name))


def _adapter(version: str, fields: str) -> RegisteredAdapter:
    return RegisteredAdapter(version=version, **json.loads(fields))
