"""Fixtures for tests of the queue's contract."""

from collections.abc import Iterator

import pytest
import redis

from app.jobs.redis_client import RedisClient
from tests.app.jobs.scene import Scene


@pytest.fixture
def scene(redis_url: str, redis_client: RedisClient) -> Iterator[Scene]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        yield Scene(redis_client, raw, redis_url)
