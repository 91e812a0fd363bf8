import pytest

from app.access.api_key import ApiKey
from app.access.key_check import has_key, require_key, warnings
from app.access.key_store import KeyStore
from app.config.own_command import own_command
from app.config.server import ServerConfig
from app.config.settings import AuthConfig, Config
from app.errors import ConfigError
from app.jobs.redis_client import RedisClient

AWAY = "redis://127.0.0.1:1/0"


def config(redis_url: str, host: str = "0.0.0.0", **auth: object) -> Config:
    server = ServerConfig(host=host)
    made = AuthConfig(**auth)  # type: ignore[arg-type]
    return Config(model_name="m", redis_url=redis_url, server=server, auth=made)


def make_key(client: RedisClient) -> KeyStore:
    store = KeyStore(client)
    store.create(ApiKey(id="", name="one", digest=""))
    return store


def test_a_service_for_other_machines_without_a_key_says_so_and_names_the_command(redis_url: str) -> None:
    assert f"`{own_command('keys create NAME --scope admin')}` (admin: it sees also" in warnings(config(redis_url))[1]
    assert not warnings(config(redis_url, host="127.0.0.1"))


def test_with_a_key_anywhere_there_is_nothing_to_say(redis_url: str, redis_client: RedisClient) -> None:
    assert not warnings(config(redis_url, api_keys=("a",))) and not warnings(config(redis_url, admin_keys=("a",)))
    make_key(redis_client)
    assert not warnings(config(redis_url))


def test_a_service_that_requires_keys_does_not_start_without_any(redis_url: str, redis_client: RedisClient) -> None:
    with pytest.raises(ConfigError, match=r"auth\.required is set .* keys create NAME --scope admin` \(admin: it sees"):
        require_key(config(redis_url, required=True))
    require_key(config(redis_url))
    require_key(config(redis_url, required=True, admin_keys=("a",)))
    store = make_key(redis_client)
    require_key(config(redis_url, required=True))
    store.revoke(store.read("one").id)
    require_key(config(redis_url, required=True))


def test_a_redis_that_does_not_respond_may_have_keys() -> None:
    assert has_key(config(AWAY), wait_seconds=0.0) is None
