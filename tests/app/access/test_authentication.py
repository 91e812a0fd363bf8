import time

import pytest
import redis

from app.access.api_key import DEFAULT_SCOPES, ApiKey, Scope
from app.access.authentication import CACHED_SECONDS, Authentication
from app.access.key_store import KeyStore
from app.access.secret import digest_of
from app.config.settings import AuthConfig
from app.errors import Unauthorized
from app.jobs.redis_client import RedisClient, connect


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def store(redis_client: RedisClient) -> KeyStore:
    return KeyStore(redis_client)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(store: KeyStore, name: str = "one", **more: object) -> tuple[ApiKey, bytes]:
    key, secret = store.create(ApiKey(id="", name=name, digest="", **more))  # type: ignore[arg-type]
    return key, secret.encode()


def test_a_key_that_is_revoked_elsewhere_opens_nothing_within_a_second(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    key, secret = make(store)
    found = here.key_of(secret)
    assert found is not None and found.id == key.id
    store.revoke(key.id)
    clock.seconds += CACHED_SECONDS / 2
    assert here.key_of(secret) is not None
    clock.seconds += CACHED_SECONDS / 2
    assert here.key_of(secret) is None
    assert CACHED_SECONDS <= 1


def test_a_change_elsewhere_counts_within_a_second(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    key, secret = make(store)
    here.key_of(secret)
    store.update(key.id, {"scopes": {Scope.JOBS}})
    clock.seconds += CACHED_SECONDS
    found = here.key_of(secret)
    assert found is not None and found.scopes == {Scope.JOBS}


def test_a_new_key_opens_at_once(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    assert here.key_of(b"llm-wrong") is None
    assert here.key_of(make(store)[1]) is not None


def test_a_key_in_constant_use_is_read_once_a_second(
    store: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, reads = Authentication(AuthConfig(), store, clock), list[str]()
    _, secret = make(store)
    find = store.find
    monkeypatch.setattr(store, "find", lambda digest: reads.append(digest) or find(digest))
    for _ in range(30):
        here.key_of(secret)
        clock.seconds += CACHED_SECONDS / 10
    assert 3 <= len(reads) <= 4  # 30 tenths of a second


def test_strangers_do_not_fill_the_memory(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    for number in range(100):
        here.key_of(f"llm-{number}".encode())
    assert not here._found


def test_keys_are_needed_once_there_is_one(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    assert not here.is_needed()
    key, _ = make(store)
    clock.seconds += CACHED_SECONDS
    assert here.is_needed()
    store.revoke(key.id)
    clock.seconds += CACHED_SECONDS
    assert here.is_needed(), "else whoever had the last key could enter without one"
    store.revoke(key.id, forget=True)
    clock.seconds += CACHED_SECONDS
    assert not here.is_needed()


@pytest.mark.parametrize(
    "config", [AuthConfig(required=True), AuthConfig(api_keys=("a",)), AuthConfig(admin_keys=("a",))]
)
def test_keys_are_needed_where_the_configuration_says_so_whatever_redis_does(config: AuthConfig) -> None:
    here = Authentication(config, KeyStore(connect("redis://127.0.0.1:1/0")))
    assert here.is_needed()


def test_while_redis_is_away_no_key_of_it_opens_and_configured_ones_do() -> None:
    here = Authentication(AuthConfig(api_keys=("mine",)), KeyStore(connect("redis://127.0.0.1:1/0")))
    assert here.key_of(b"mine") is not None
    with pytest.raises(redis.ConnectionError):
        here.key_of(b"llm-other")
    with pytest.raises(redis.ConnectionError):
        Authentication(AuthConfig(), KeyStore(connect("redis://127.0.0.1:1/0"))).is_needed()


def test_while_redis_is_away_requests_need_a_key_as_they_did_before(
    store: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Authentication(AuthConfig(), store, clock)
    assert not here.is_needed()

    def fail() -> bool:
        raise redis.ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(store, "are_there_any", fail)
        clock.seconds += CACHED_SECONDS
        assert not here.is_needed()
    make(store)
    assert here.is_needed(), "it asks again at once"


def test_an_expired_key_is_refused_by_its_name(store: KeyStore) -> None:
    here = Authentication(AuthConfig(), store)
    _, secret = make(store, "ended", expires_at=time.time() - 1)
    with pytest.raises(Unauthorized, match=r"the API key 'ended' expired at \d{4}-"):
        here.key_of(secret)
    _, secret = make(store, "fresh", expires_at=time.time() + 100)
    assert here.key_of(secret) is not None


def test_a_key_expires_while_it_is_cached(store: KeyStore, clock: Clock) -> None:
    here = Authentication(AuthConfig(), store, clock)
    _, secret = make(store, expires_at=time.time() + 0.3)
    assert here.key_of(secret) is not None
    time.sleep(0.35)
    with pytest.raises(Unauthorized):
        here.key_of(secret)


def test_keys_of_the_configuration_keep_their_owner_and_are_no_admins(store: KeyStore) -> None:
    digest = digest_of(b"third")
    config = AuthConfig(api_keys=("first-key", f"sha256:{digest}"), admin_keys=("root",))
    here = Authentication(config, store)
    first, third, root = (here.key_of(secret) for secret in (b"first-key", b"third", b"root"))
    assert first is not None and third is not None and root is not None
    # as versions before keys in Redis named the owner: its jobs stay its own
    assert first.id == first.name == "key-" + digest_of(b"first-key")[:24]
    assert third.id == f"key-{digest[:24]}"
    assert (first.scopes, root.scopes) == (DEFAULT_SCOPES, frozenset(Scope))
    assert here.key_of(f"sha256:{digest}".encode()) is None, "the digest itself opens nothing"
