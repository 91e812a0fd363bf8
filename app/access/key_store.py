"""The API keys in Redis: creates, reads, changes and revokes them. Errors of Redis pass through as `redis.RedisError`.

A secret is never stored, only its digest. Keys stay listed when they are revoked, so that a service whose last key is
revoked is not open to everybody.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from app.access.api_key import ApiKey, Limits, Scope, owner_of
from app.access.secret import digest_of, new_secret
from app.errors import Conflict, KeyNotFound
from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.redis_client import RedisClient, script

USED_SECONDS = 60  # between two notes of the last use of a key
_NAMES_OF_LIMITS = tuple(Limits.__slots__)


class KeyStore:
    """All API keys of a Redis, which its services share."""

    def __init__(self, client: RedisClient) -> None:
        self._redis = client
        self._create = script(client, "api_key_create")
        self._find = script(client, "api_key_find")
        self._update = script(client, "api_key_update")
        self._rotate = script(client, "api_key_rotate")
        self._revoke = script(client, "api_key_revoke")

    def create(self, wanted: ApiKey) -> tuple[ApiKey, str]:
        """Create a key, and return it with its secret, which is not stored.

        Args:
            wanted: what the key is to be; `id`, `digest` and `created_at` do not count.

        Raises:
            Conflict: another key has the name.
        """
        secret = new_secret()
        digest = digest_of(secret.encode())
        key = replace(wanted, id=owner_of(digest), digest=digest)
        verdict = self._create(
            keys=[keys.api_key(key.id), keys.api_key_of(digest), keys.API_KEYS, keys.API_KEY_NAMES],
            args=[key.id, key.name, *_pairs(_fields(key))],
        )
        _raise_if_taken(verdict, key.name)
        return self.read(key.id), secret

    def find(self, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest, which may have expired; a revoked one is not found."""
        record = self._find(keys=[keys.api_key_of(digest)], args=[keys.api_key(""), USED_SECONDS])
        return None if record is None else _key(dict(zip(record[::2], record[1::2], strict=True)))

    def read(self, name_or_id: str) -> ApiKey:
        """Return the key with this name or id; a revoked one by its id. Raises KeyNotFound."""
        key_id = self._redis.hget(keys.API_KEY_NAMES, name_or_id) or name_or_id
        record = self._redis.hgetall(keys.api_key(key_id))
        if not record:
            raise KeyNotFound(f"no API key has the name or id {name_or_id[:100]!r}")
        return _key(record)

    def are_there_any(self) -> bool:
        """Return whether a key was ever made here, and not forgotten since."""
        return self._redis.exists(keys.API_KEYS) == 1

    def list_keys(
        self, *, limit: int, after: str | None = None, with_revoked: bool = False
    ) -> tuple[list[ApiKey], bool]:
        """Return keys, oldest first, and whether more come.

        Args:
            after: the id of the last key before these.

        Raises:
            KeyNotFound: `after` is no id of a key.
        """
        start = 0
        if after is not None:
            rank = self._redis.zrank(keys.API_KEYS, after)
            if rank is None:
                raise KeyNotFound(f"no API key has the id {after[:100]!r}")
            start = rank + 1
        listed: list[ApiKey] = []
        while len(listed) <= limit and (ids := self._redis.zrange(keys.API_KEYS, start, start + limit)):
            listed += [key for key in self._read_many(ids) if with_revoked or key.revoked_at is None]
            start += len(ids)
        return listed[:limit], len(listed) > limit

    def update(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        """Change fields of a key; it is used as it is then within a second.

        Args:
            changes: fields of `ApiKey` by name, and the limits that change in `limits`, by name too.

        Raises:
            KeyNotFound: there is no such key, or it is revoked.
            Conflict: another key has the name.
        """
        name = changes.get("name", "")
        verdict = self._update(
            keys=[keys.api_key(key_id), keys.API_KEY_NAMES], args=[key_id, name, *_pairs(_written(changes))]
        )
        _raise_if_missing(verdict != "missing", key_id)
        _raise_if_taken(verdict, name)
        return self.read(key_id)

    def rotate(self, key_id: str, grace_seconds: int = 0) -> tuple[ApiKey, str]:
        """Give a key another secret, and return it with this. The last secret is valid for `grace_seconds` more.

        Raises KeyNotFound: there is no such key, or it is revoked.
        """
        secret = new_secret()
        digest = digest_of(secret.encode())
        rotated = self._rotate(
            keys=[keys.api_key(key_id), keys.api_key_of(digest)],
            args=[key_id, digest, keys.api_key_of(""), grace_seconds],
        )
        _raise_if_missing(bool(rotated), key_id)
        return self.read(key_id), secret

    def revoke(self, key_id: str, *, forget: bool = False) -> None:
        """Revoke a key. It opens nothing from now on; processes that have just used it notice within a second.

        Args:
            forget: remove it from the list too. Where no key is left, requests need none.

        Raises:
            KeyNotFound
        """
        revoked = self._revoke(
            keys=[keys.api_key(key_id), keys.API_KEYS, keys.API_KEY_NAMES],
            args=[key_id, keys.api_key_of(""), "1" if forget else ""],
        )
        _raise_if_missing(bool(revoked), key_id)

    def _read_many(self, ids: Iterable[str]) -> list[ApiKey]:
        with self._redis.pipeline(transaction=False) as pipe:
            for key_id in ids:
                pipe.hgetall(keys.api_key(key_id))
            return [_key(record) for record in pipe.execute() if record]


def _fields(key: ApiKey) -> dict[str, str]:
    """Return what is written of a new key, beside its id, name and time."""
    written = ("group", "scopes", "models", "weight", "max_priority", "expires_at", "digest")
    return _written({name: getattr(key, name) for name in written} | {"limits": asdict(key.limits)})


def _written(values: Mapping[str, Any]) -> dict[str, str]:
    """Return fields as the record has them. None is an empty text."""
    written: dict[str, str] = {}
    for name, value in values.items():
        if name == "scopes":
            written[name] = ",".join(sorted(set(value)))
        elif name == "models":
            written[name] = json.dumps(list(value))
        elif name == "limits":
            written |= {limit: "" if number is None else str(number) for limit, number in value.items()}
        elif name != "name":
            written[name] = "" if value is None else str(value)
    return written


def _pairs(fields: Mapping[str, str]) -> Sequence[str]:
    return [part for pair in fields.items() for part in pair]


def _key(record: Mapping[str, str]) -> ApiKey:
    limits = {name: int(text) if (text := record.get(name)) else None for name in _NAMES_OF_LIMITS}
    return ApiKey(
        id=record["id"],
        name=record["name"],
        digest=record["digest"],
        group=record["group"],
        scopes=frozenset(Scope(scope) for scope in record["scopes"].split(",") if scope),
        models=tuple(json.loads(record["models"])),
        weight=float(record["weight"]),
        max_priority=Priority(record["max_priority"]),
        limits=Limits(**limits),
        created_at=_time(record, "created_at"),
        expires_at=_time(record, "expires_at"),
        last_used_at=_time(record, "last_used_at"),
        revoked_at=_time(record, "revoked_at"),
    )


def _time(record: Mapping[str, str], name: str) -> float | None:
    return float(text) if (text := record.get(name)) else None


def _raise_if_taken(verdict: str, name: str) -> None:
    if verdict == "taken":
        raise Conflict(f"another API key has the name {name!r}; choose another, or revoke that key")


def _raise_if_missing(is_there: bool, key_id: str) -> None:
    if not is_there:
        raise KeyNotFound(f"no API key has the id {key_id[:100]!r}, or it is revoked")
