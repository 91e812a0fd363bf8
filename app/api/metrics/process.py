"""What the processes of one API count: requests, webhooks, round trips to Redis.

prometheus_client keeps the values in the folder that `PROMETHEUS_MULTIPROC_DIR` names when it is imported, where all
processes of a gunicorn share it (`app.server.metrics_folder`); else in this process.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OTHER = "_OTHER"  # a method that no route has: a client could invent any number of them
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
REDIS_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

_registry = CollectorRegistry()
_requests = Histogram(
    "llm_api_http_request_duration_seconds",
    "From the arrival of a request to the last byte of its response.",
    ["method", "route", "status"],
    buckets=_REQUEST_BOUNDS,
    registry=_registry,
)
_webhooks = Counter("llm_api_webhook_tries", "Attempts to send a webhook.", ["outcome"], registry=_registry)
_redis = Histogram("llm_api_redis_round_trip_seconds", "Pings of Redis.", buckets=REDIS_BOUNDS, registry=_registry)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request that has been answered. route: of a request that matched one, else ""."""
    _requests.labels(method if method in _METHODS else OTHER, route, status).observe(seconds)


def count_webhook(outcome: str) -> None:
    """Count an attempt: `sent`, `failed` (tried again), or `given_up`."""
    _webhooks.labels(outcome).inc()


def count_ping(seconds: float) -> None:
    _redis.observe(seconds)


def add_to(registry: CollectorRegistry) -> None:
    """Have the registry show what all processes have counted."""
    if FOLDER in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_registry)
