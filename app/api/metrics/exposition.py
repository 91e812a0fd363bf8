"""Writes all metrics as a text that Prometheus reads."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from app.api.metrics import process
from app.api.metrics.service import ServiceCollector
from app.jobs.redis_client import RedisClient

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(client: RedisClient, model: str) -> bytes:
    """Return the metrics of this API and of the service, as `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(client, model))
    process.add_to(registry)
    return generate_latest(registry)
