"""Whether a service that starts has an API key, and what its operator has to know."""

import time
from collections.abc import Sequence

import redis

from app.access.key_store import KeyStore
from app.config.addresses import LOCALHOST, is_loopback
from app.config.loader import redis_url_of
from app.config.own_command import own_command
from app.config.settings import Config
from app.errors import ConfigError
from app.jobs.redis_client import connect

WAIT_SECONDS = 5.0  # for a Redis that starts beside the API
_AGAIN_SECONDS = 0.1
_OPEN_TO_OTHERS = (
    "there is no API key, and the API listens for other machines. Every client that reaches it can use the model and "
    "read, cancel and delete all jobs."
)


def require_key(config: Config) -> None:
    """Raise ConfigError if `auth.required` is set and there is no key. A Redis that does not respond may have one."""
    if config.auth.required and has_key(config) is False:
        raise ConfigError(f"auth.required is set and there is no API key: {_make_one()}, or set auth.admin_keys")


def warnings(config: Config, wait_seconds: float = WAIT_SECONDS) -> Sequence[str]:
    """Return lines about a service that everybody can use; none about any other."""
    is_closed = is_loopback(config.server.host) or config.auth.required or has_key(config, wait_seconds)
    return () if is_closed else (_OPEN_TO_OTHERS, f"{cure_of_open_service()}.")


def cure_of_open_service() -> str:
    """Return what the operator of a service that everybody can use may do."""
    return f"{_make_one()}, or set server.host to {LOCALHOST}"


def _make_one() -> str:
    command = own_command("keys create NAME --scope admin")
    return f"make one with `{command}` (admin: it sees also what was made without a key)"


def has_key(config: Config, wait_seconds: float = WAIT_SECONDS) -> bool | None:
    """Return whether a key is configured or was made; None: Redis does not respond within `wait_seconds`."""
    if config.auth.api_keys or config.auth.admin_keys:
        return True
    client = connect(redis_url_of(config), reply_seconds=1.0, retries=0)
    deadline = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                return KeyStore(client).are_there_any()
            except redis.RedisError:
                if time.monotonic() >= deadline:
                    return None
                time.sleep(_AGAIN_SECONDS)
    finally:
        client.close()
