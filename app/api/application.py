"""Makes the application: services, routes, errors. It loads no model library, and connects to nothing yet."""

import time
from collections.abc import Callable
from typing import Any

from flask import Flask

from app.access.authentication import Authentication, is_key_configured
from app.access.key_store import KeyStore
from app.api import access, cross_site, openapi, problems, rate_limits, request_context, request_notes, response_headers
from app.api.access import METRICS_PATH, OPEN_PATHS
from app.api.adapter_loading import AdapterLoading
from app.api.adapters import Adapters
from app.api.batches.batches import BatchStore
from app.api.batches.driver import BatchDriver
from app.api.batches.files import FileStore
from app.api.job_service import JobService
from app.api.live.views import LiveViews
from app.api.queue_estimate import QueueEstimate
from app.api.redis_health import RedisHealth
from app.api.request_context import Services, services_of
from app.api.request_parser import IGNORES_PARAMS, IGNORES_UNKNOWN, NOT_OF_FAMILY
from app.api.routes import BLUEPRINTS, docs, live, page
from app.api.schemas.sampling import TRANSFORMERS_NAMES
from app.api.waiting.waiters import Waiters
from app.api.webhooks.queue import WebhookQueue
from app.api.webhooks.sender import WebhookSender
from app.config.loader import redis_url_of
from app.config.server import ServerConfig
from app.config.settings import Config
from app.jobs.adapter_registry import AdapterRegistry
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.limits import RequestCounter
from app.jobs.queue_positions import QueuePositions
from app.jobs.reaper import Reaper
from app.jobs.redis_client import connect
from app.jobs.sharing import Sharing
from app.jobs.store import JobStore
from app.jobs.tokenizer_rpc import TokenizerClient
from app.jobs.tracing import tracer_of

RESERVED_THREADS = 32  # of each process: for requests that do not wait, /healthz above all


class Application(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No function of ours is asynchronous. Flask would inspect every one that a request passes."""
        return func


def create_app(config: Config) -> Flask:
    """Return the WSGI application. Raises ConfigError."""
    app = Application(__name__)
    app.url_map.merge_slashes = False  # a redirect would lose the key behind a proxy; the error says what to type
    app.config["MAX_CONTENT_LENGTH"] = config.server.max_body_bytes
    app.config[IGNORES_UNKNOWN] = config.openai.unknown_fields == "ignore"
    app.config[IGNORES_PARAMS] = config.generate.unknown_params == "ignore"
    app.config[NOT_OF_FAMILY] = TRANSFORMERS_NAMES if config.model_family == "llama" else frozenset()
    request_notes.register(app)
    services = _services(config)
    cross_site.register(app, config.server, needs_key=services.authentication.is_needed)
    open_paths = OPEN_PATHS | {METRICS_PATH} if config.metrics.open else OPEN_PATHS
    scopes = {**openapi.scopes_of(BLUEPRINTS), **live.SCOPES}
    access.register(app, services.authentication, scopes, open_paths)
    rate_limits.register(app, RequestCounter(services.redis), scopes)
    request_context.register(app, services)
    problems.register(app)
    response_headers.register(app)
    openapi.register(app, BLUEPRINTS, requires_key=is_key_configured(config.auth))
    app.register_blueprint(docs.pages)
    app.register_blueprint(page.pages)
    app.register_blueprint(live.pages)
    tracer = tracer_of(config, "llm-api")
    if tracer is not None:
        from app.api.traced_requests import TracedRequests

        app.wsgi_app = TracedRequests(app.wsgi_app, tracer)  # type: ignore[method-assign]
    return app


def start_threads(app: Flask) -> None:
    """Start what runs beside the requests. Call it once in each process that serves requests, after any fork."""
    services = services_of(app)
    services.redis_health.start()
    services.reaper.start()
    if services.webhooks is not None:
        services.webhooks.start()
    BatchDriver(services.batches, services.files, services.jobs).start()


def max_waiters(server: ServerConfig) -> int:
    """Return how many requests of one process may wait at once, each in a thread of its own."""
    return max(1, server.threads - min(RESERVED_THREADS, server.threads // 4))


def _services(config: Config) -> Services:
    url = redis_url_of(config)
    redis_health = RedisHealth(url)
    client = redis_health.client()
    model, jobs = config.model_name, config.jobs
    sharing, ledger = Sharing.of(jobs), LedgerLimits.of(config)
    store = JobStore(
        client, model=model, ttl_seconds=jobs.ttl, max_queued=jobs.max_queued, sharing=sharing, ledger=ledger
    )
    registry = AdapterRegistry(client, model) if config.adapters.runtime_loading else None
    waiters = Waiters(url, client, store, max_waiters(config.server))
    estimate = QueueEstimate(client, model=model)
    batches = BatchStore(client, model=model, ttl_seconds=config.files.ttl)
    return Services(
        config=config,
        redis=client,
        redis_health=redis_health,
        authentication=Authentication(config.auth, KeyStore(client)),
        jobs=JobService(config, client, store, waiters, estimate, Adapters(config, registry)),
        adapter_loading=AdapterLoading(config, client, registry),
        files=FileStore(client, max_bytes_per_owner=config.files.max_bytes_per_owner),
        batches=batches,
        tokenizer=TokenizerClient(redis_health.client(), model),
        webhooks=_webhook_sender(config, url),
        live=LiveViews(client, model, estimate, batches, config.batches.opening, QueuePositions(client, sharing)),
        reaper=Reaper(
            connect(url),
            model=model,
            ttl_seconds=jobs.ttl,
            max_attempts=jobs.max_attempts,
            sharing=sharing,
            ledger=ledger,
        ),
        started_at=time.time(),
    )


def _webhook_sender(config: Config, redis_url: str) -> WebhookSender | None:
    """None: without a secret no request may ask for a webhook."""
    secret = config.webhooks.secret
    if secret is None:
        return None
    queue = WebhookQueue(connect(redis_url), config.model_name)
    return WebhookSender(queue, secret, allow_private=config.webhooks.allow_private)
