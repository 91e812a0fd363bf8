"""Finds the API key of a secret, and whether one is needed: in the configuration, then in Redis.

What Redis says is used for `CACHED_SECONDS`: a key that is made, changed or revoked in one process is made, changed or
revoked in every process after that time.
"""

import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime

import redis

from app.access.api_key import DEFAULT_SCOPES, ApiKey, Scope, owner_of
from app.access.key_store import KeyStore
from app.access.secret import configured_digest, digest_of
from app.config.settings import AuthConfig
from app.errors import Unauthorized

CACHED_SECONDS = 1.0
_MOST_CACHED = 10_000  # keys used within a second; each takes about 1 KB


class Authentication:
    """The API keys of one process. Its methods raise `redis.RedisError` where Redis has to be asked and fails."""

    def __init__(self, config: AuthConfig, store: KeyStore, now: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._is_configured = is_key_configured(config)
        self._configured = {key.digest: key for key in configured_keys(config)}
        self._now = now
        self._found: dict[str, tuple[float, ApiKey]] = {}  # by digest: when Redis was asked, and what it answered
        self._any: tuple[float, bool] | None = None

    @property
    def configured(self) -> list[ApiKey]:
        """The keys of the configuration."""
        return list(self._configured.values())

    def read(self, name_or_id: str) -> ApiKey:
        """Return the key with this name or id, of the configuration or of Redis. Raises KeyNotFound."""
        configured = next((key for key in self._configured.values() if key.id == name_or_id), None)
        return configured or self.store.read(name_or_id)

    def is_needed(self) -> bool:
        """Return whether requests need a key: one is configured or was made, or `auth.required` is set."""
        if self._is_configured:
            return True
        asked_at = self._now()
        if self._any is None or asked_at - self._any[0] >= CACHED_SECONDS:
            try:
                self._any = asked_at, self.store.are_there_any()
            except redis.RedisError:
                if self._any is None:
                    raise
        return self._any[1]  # while Redis is away, as it was: no key can be made then, and nothing be read

    def key_of(self, secret: bytes) -> ApiKey | None:
        """Return the key with this secret. None: there is none, or it is revoked.

        Raises Unauthorized: it has expired.
        """
        digest = digest_of(secret)
        key = self._configured_key(digest) or self._stored_key(digest)
        if key is not None and key.expires_at is not None and key.expires_at <= time.time():
            ended = datetime.fromtimestamp(key.expires_at, UTC).isoformat(timespec="seconds")
            raise Unauthorized(f"the API key {key.name!r} expired at {ended}; ask for another")
        return key

    def _configured_key(self, digest: str) -> ApiKey | None:
        """Compare with every key, in constant time: the delay of the response reveals nothing."""
        matches = [known for known in self._configured if hmac.compare_digest(known, digest)]
        return self._configured[matches[0]] if matches else None

    def _stored_key(self, digest: str) -> ApiKey | None:
        asked_at = self._now()
        cached = self._found.get(digest)
        if cached is not None and asked_at - cached[0] < CACHED_SECONDS:
            return cached[1]
        key = self.store.find(digest)
        if key is None:  # not remembered: a stranger could fill the memory, and a new key would not work at once
            self._found.pop(digest, None)
            return None
        if len(self._found) >= _MOST_CACHED:
            self._found.clear()
        self._found[digest] = asked_at, key
        return key


def is_key_configured(config: AuthConfig) -> bool:
    """Return whether the configuration alone makes requests need a key."""
    return bool(config.api_keys or config.admin_keys or config.required)


def configured_keys(config: AuthConfig) -> list[ApiKey]:
    """Return the keys of the configuration. One that is in both lists is an admin's."""
    scopes = dict.fromkeys(config.api_keys, DEFAULT_SCOPES) | {text: frozenset(Scope) for text in config.admin_keys}
    return [_configured_key(configured_digest(text), held) for text, held in scopes.items()]


def _configured_key(digest: str, scopes: frozenset[Scope]) -> ApiKey:
    key_id = owner_of(digest)
    return ApiKey(id=key_id, name=key_id, digest=digest, scopes=scopes, is_configured=True)
