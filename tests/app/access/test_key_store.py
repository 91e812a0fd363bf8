import time
from dataclasses import replace
from typing import Any

import pytest
import redis

from app.access.api_key import ApiKey, Limits, Scope
from app.access.key_store import USED_SECONDS, KeyStore
from app.access.secret import digest_of
from app.errors import Conflict, KeyNotFound
from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.redis_client import RedisClient


def wanted(name: str = "one", **more: object) -> ApiKey:
    return ApiKey(id="", name=name, digest="", **more)  # type: ignore[arg-type]


@pytest.fixture
def store(redis_client: RedisClient) -> KeyStore:
    return KeyStore(redis_client)


def found(store: KeyStore, secret: str) -> ApiKey | None:
    return store.find(digest_of(secret.encode()))


def test_a_key_is_found_by_its_secret_as_it_was_wanted(store: KeyStore) -> None:
    limits = Limits(requests_per_minute=60, tokens_per_day=1_000_000)
    created, secret = store.create(
        wanted(
            "batch",
            group="team",
            scopes=frozenset({Scope.BATCHES, Scope.ADMIN}),
            models=("small", "a,b"),
            weight=2.5,
            max_priority=Priority.LOW,
            limits=limits,
            expires_at=1e10,
        )
    )
    assert secret.startswith("llm-") and len(secret) == 47
    assert (created.group, created.models, created.weight, created.limits) == ("team", ("small", "a,b"), 2.5, limits)
    assert (created.scopes, created.max_priority) == ({Scope.BATCHES, Scope.ADMIN}, Priority.LOW)
    assert created.created_at == pytest.approx(time.time(), abs=5) and created.expires_at == 1e10
    assert found(store, secret) == created
    assert found(store, secret + "x") is None and found(store, "") is None


def test_no_secret_is_in_redis(store: KeyStore, redis_url: str) -> None:
    created, first = store.create(wanted())
    _, second = store.rotate(created.id, 100)
    with redis.Redis.from_url(redis_url) as client:
        names = client.keys("*")
        everything = b"".join([*names, *(client.dump(name) or b"" for name in names)])
    assert b"one" in everything
    for secret in (first, second):
        assert secret.removeprefix("llm-").encode() not in everything


def test_two_keys_never_have_one_name_until_one_is_revoked(store: KeyStore) -> None:
    first, _ = store.create(wanted())
    with pytest.raises(Conflict, match="another API key has the name 'one'"):
        store.create(wanted())
    other, _ = store.create(wanted("two"))
    with pytest.raises(Conflict, match="'one'"):
        store.update(other.id, {"name": "one"})
    store.revoke(first.id)
    assert store.create(wanted())[0].id == store.read("one").id != first.id


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(store: KeyStore) -> None:
    key, secret = store.create(wanted())
    _, second = store.rotate(key.id, 100)
    store.revoke(key.id)
    assert found(store, secret) is None and found(store, second) is None
    assert store.read(key.id).revoked_at == pytest.approx(time.time(), abs=5)
    with pytest.raises(KeyNotFound):
        store.read("one")
    for change in (lambda: store.rotate(key.id), lambda: store.update(key.id, {"weight": 2.0})):
        with pytest.raises(KeyNotFound, match="revoked"):
            change()
    assert found(store, second) is None
    assert store.are_there_any(), "a service whose last key is revoked is not open to everybody"
    assert [one.id for one in store.list_keys(limit=10, with_revoked=True)[0]] == [key.id]
    assert store.list_keys(limit=10) == ([], False)
    store.revoke(key.id)


def test_a_key_can_be_forgotten_and_nothing_of_it_is_left(store: KeyStore, redis_client: RedisClient) -> None:
    key, _ = store.create(wanted())
    store.rotate(key.id, 100)
    store.revoke(key.id, forget=True)
    assert redis_client.execute_command("KEYS", "*") == [] and not store.are_there_any()
    with pytest.raises(KeyNotFound):
        store.revoke(key.id)


def test_after_a_rotation_the_last_secret_is_valid_for_the_grace_time_alone(
    store: KeyStore, redis_client: RedisClient
) -> None:
    key, first = store.create(wanted())
    rotated, second = store.rotate(key.id)
    assert rotated.id == key.id, "the owner of its jobs stays the same"
    assert found(store, first) is None and found(store, second) is not None
    _, third = store.rotate(key.id, 300)
    second_key = keys.api_key_of(digest_of(second.encode()))
    assert found(store, second) == found(store, third)
    assert 298 <= redis_client.execute_command("TTL", second_key) <= 300
    _, fourth = store.rotate(key.id, 300)
    assert found(store, second) is None, "two secrets at most"
    assert found(store, third) is not None and found(store, fourth) is not None


def test_an_update_changes_what_it_names_and_nothing_else(store: KeyStore) -> None:
    key, secret = store.create(wanted(limits=Limits(max_tokens=7, waiting_jobs=3), expires_at=1e10, group="team"))
    changed = store.update(key.id, {"limits": {"max_tokens": None, "concurrent_jobs": 2}, "expires_at": None})
    assert changed.limits == Limits(waiting_jobs=3, concurrent_jobs=2)
    assert (changed.expires_at, changed.group, changed.name) == (None, "team", "one")
    renamed = store.update(key.id, {"name": "new", "models": ("m",), "scopes": {Scope.JOBS}})
    assert found(store, secret) == renamed == replace(store.read("new"), last_used_at=None)
    with pytest.raises(KeyNotFound):
        store.read("one")
    with pytest.raises(KeyNotFound):
        store.update("key-0", {"name": "other"})
    assert store.create(wanted("one"))[0].name == "one"


def test_the_last_use_is_noted_at_most_once_a_minute(store: KeyStore, redis_client: RedisClient) -> None:
    key, secret = store.create(wanted())
    found(store, secret)
    used_at = store.read(key.id).last_used_at
    assert used_at == pytest.approx(time.time(), abs=5)
    for ago, is_noted in ((USED_SECONDS - 20, False), (USED_SECONDS + 1, True)):
        redis_client.execute_command("HSET", keys.api_key(key.id), "last_used_at", int(used_at - ago))
        found(store, secret)
        assert (store.read(key.id).last_used_at == used_at - ago) is not is_noted


def test_an_expired_key_is_not_used(store: KeyStore) -> None:
    key, secret = store.create(wanted(expires_at=1.0))
    expired = found(store, secret)
    assert expired is not None and store.read(key.id).last_used_at is None


def test_keys_are_found_where_redis_accepts_no_writes(store: KeyStore, redis_client: RedisClient) -> None:
    _, secret = store.create(wanted())
    redis_client.execute_command("CONFIG", "SET", "maxmemory", "1")
    try:
        assert found(store, secret) is not None
    finally:
        redis_client.execute_command("CONFIG", "SET", "maxmemory", "0")


def test_the_list_comes_in_pages_oldest_first(store: KeyStore) -> None:
    made = [store.create(wanted(f"key{number}"))[0] for number in range(5)]
    store.revoke(made[1].id)
    first, has_more = store.list_keys(limit=2)
    assert ([key.name for key in first], has_more) == (["key0", "key2"], True)
    rest, has_more = store.list_keys(limit=2, after=first[-1].id)
    assert ([key.name for key in rest], has_more) == (["key3", "key4"], False)
    with pytest.raises(KeyNotFound):
        store.list_keys(limit=2, after="key-0")


def test_a_script_that_is_sent_again_changes_nothing_more(
    store: KeyStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client does after a reply that was lost."""
    run = redis_client.execute_command
    sent: list[object] = []

    def twice(*command: Any, **options: Any) -> Any:
        if command[0] == "EVALSHA":
            sent.append(run(*command, **options))
        return run(*command, **options)

    monkeypatch.setattr(redis_client, "execute_command", twice)
    made, first = store.create(wanted())
    _, second = store.rotate(made.id, 50)
    renamed = store.update(made.id, {"name": "two"})
    assert len(sent) >= 3 and [renamed] == store.list_keys(limit=10)[0]
    assert found(store, first) is not None and found(store, second) is not None
    store.revoke(made.id, forget=False)
    assert found(store, second) is None
