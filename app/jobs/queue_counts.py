"""How many jobs of a model wait."""

from collections.abc import Mapping

from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.redis_client import RedisClient, script


def waiting_by_priority(client: RedisClient, model: str) -> Mapping[Priority, int]:
    count = script(client, "count_waiting")
    counts = count(keys=[keys.waiting(model)], args=[len(Priority)])
    return dict(zip(sorted(Priority, key=lambda priority: priority.step), counts, strict=True))
