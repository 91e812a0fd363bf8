"""Which adapters of run time are registered and served, in a real Valkey."""

import json

import pytest

from app.errors import InvalidRequest
from app.jobs import adapter_registry, keys
from app.jobs.adapter_registry import AdapterRegistry
from app.jobs.redis_client import RedisClient


@pytest.fixture
def registry(redis_client: RedisClient) -> AdapterRegistry:
    return AdapterRegistry(redis_client, "m")


def load(registry: AdapterRegistry, name: str, source: str = "x.gguf", *, replaces: bool = False) -> str:
    version = registry.add(name, source, replaces=replaces)
    registry.serve(name, version, replaces=replaces)
    return version


def test_requests_choose_an_adapter_once_it_is_served_and_until_it_is_removed(registry: AdapterRegistry) -> None:
    version = registry.add("sql", "sql.gguf", replaces=False)
    assert [one.version for one in registry.all()] == [version]
    assert registry.served() == [] and registry.find("sql") is None
    registry.serve("sql", version, replaces=False)
    (adapter,) = registry.served()
    assert (adapter, adapter.source) == (registry.find("sql"), "sql.gguf")
    registry.remove("sql", version)
    assert registry.all() == registry.served() == [] and registry.find("sql") is None


def test_adapters_keep_the_order_in_which_they_were_loaded(registry: AdapterRegistry) -> None:
    for name in ("z", "a", "ü"):
        load(registry, name)
    assert [one.name for one in registry.served()] == ["z", "a", "ü"]


def test_a_name_is_loaded_once_unless_it_is_replaced_and_then_has_another_version(registry: AdapterRegistry) -> None:
    before = load(registry, "sql")
    with pytest.raises(InvalidRequest, match="has already been loaded"):
        registry.add("sql", "other.gguf", replaces=False)
    after = registry.add("sql", "other.gguf", replaces=True)
    assert [one.version for one in registry.served()] == [before], "until it is loaded"
    registry.serve("sql", after, replaces=True)
    assert [one.version for one in registry.all()] == [one.version for one in registry.served()] == [after] != [before]
    registry.remove("sql", before)
    assert registry.find("sql"), "a late removal of another version"


def test_of_two_loads_of_a_name_at_once_the_first_is_served(registry: AdapterRegistry) -> None:
    first, second = (registry.add("sql", "x.gguf", replaces=False) for _ in range(2))
    registry.serve("sql", second, replaces=False)
    with pytest.raises(InvalidRequest, match="has already been loaded"):
        registry.serve("sql", first, replaces=False)


def test_a_call_whose_reply_was_lost_is_repeated_without_harm(
    registry: AdapterRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_registry.secrets, "token_hex", lambda _: "same")
    for _ in range(2):
        registry.add("sql", "x.gguf", replaces=False)
    for _ in range(2):
        registry.serve("sql", "same", replaces=False)
    for _ in range(2):
        registry.remove("sql", "same")
    assert registry.all() == []


def test_there_is_a_most_and_a_load_whose_process_died_does_not_count_for_ever(
    registry: AdapterRegistry, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_registry, "MOST_ADAPTERS", 2)
    load(registry, "one")
    abandoned = registry.add("two", "x.gguf", replaces=False)
    with pytest.raises(InvalidRequest, match="2 adapters, which is the most"):
        registry.add("three", "x.gguf", replaces=False)
    fields = json.loads(redis_client.hget(keys.adapters("m"), abandoned) or "")
    fields["added_at"] -= adapter_registry.LOAD_SECONDS + 1
    redis_client.execute_command("HSET", keys.adapters("m"), abandoned, json.dumps(fields))
    registry.add("three", "x.gguf", replaces=False)
    with pytest.raises(InvalidRequest, match="abandoned"):
        registry.serve("two", abandoned, replaces=False)
    assert {one.name for one in registry.all()} == {"one", "three"}
