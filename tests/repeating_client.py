"""A client that repeats its commands, as a client does when its connection breaks before the answer."""

from typing import Any

from app.jobs.redis_client import RedisClient


class RepeatingClient:
    """Sends each command `times` times and returns the last answer. Pipelines are sent once."""

    def __init__(self, client: RedisClient, *, times: int = 1) -> None:
        self._client = client
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def execute_command(self, *args: str | int) -> Any:
        return [self._client.execute_command(*args) for _ in range(self.times)][-1]
