"""Fixtures shared by all tests: one Valkey for the run, and a clean database for each test that asks for it."""

import os
from collections.abc import Iterator

import pytest
import redis

from app.jobs import keys
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import JobStore
from tests.valkey import Valkey, running_valkey

LONGEST = "tests/end_to_end/"  # and of these the faults, which wait for minutes and leave the cores to the others
FAULTS = f"{LONGEST}test_faults"

_has_begun = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left with it when the others are done."""

    def lateness(item: pytest.Item) -> tuple[bool, bool]:
        return not item.nodeid.startswith(FAULTS), not item.nodeid.startswith(LONGEST)

    items.sort(key=lateness)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The faults hold the service to seconds: of several processes, those that begin with something else give way."""
    global _has_begun
    if not _has_begun and "PYTEST_XDIST_WORKER" in os.environ and not item.nodeid.startswith(FAULTS):
        os.nice(5)
    _has_begun = True


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of an empty database."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[RedisClient]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(redis_url: str, redis_client: RedisClient) -> JobStore:
    """A job store for the model "m", of which a worker lives; at most 3 jobs may wait."""
    redis_client.set(keys.alive("m"), "somebody")
    return JobStore(redis_client, model="m", ttl_seconds=60, max_queued=3)
