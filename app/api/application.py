"""Makes the application: services, routes, errors. It loads no model library and talks to nobody yet."""

import time

from flask import Flask

from app.api import auth, openapi, problems
from app.api.batches.batches import BatchStore
from app.api.batches.driver import BatchDriver
from app.api.batches.files import FileStore
from app.api.queue_estimate import QueueEstimate
from app.api.redis_health import RedisHealth
from app.api.routes import BLUEPRINTS, docs
from app.api.services import Services, provide, services_of
from app.api.waiting.waiters import Waiters
from app.api.webhooks.queue import WebhookQueue
from app.api.webhooks.sender import WebhookSender
from app.config.settings import Config, ServerConfig
from app.errors import ConfigError
from app.jobs.reaper import Reaper
from app.jobs.redis_client import connect
from app.jobs.store import JobStore
from app.jobs.tokenizer_rpc import TokenizerClient

RESERVED_THREADS = 32  # of each process: for what does not wait, /healthz above all


def create_app(config: Config) -> Flask:
    """The WSGI application. Raises ConfigError."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = config.server.max_body_bytes
    provide(app, _services(config))
    auth.register(app, config.auth.api_keys)
    problems.register(app)
    openapi.register(app, BLUEPRINTS, with_keys=bool(config.auth.api_keys))
    app.register_blueprint(docs.pages)
    return app


def start_threads(app: Flask) -> None:
    """What runs beside the requests of a process that answers. Call it once in each, after any fork."""
    made = services_of(app)
    made.watch.start()
    made.reaper.start()
    if made.webhooks is not None:
        made.webhooks.start()
    BatchDriver(app).start()


def max_waiters(server: ServerConfig) -> int:
    """Requests of one process that may wait at once, each in a thread of its own."""
    return max(1, server.threads - min(RESERVED_THREADS, server.threads // 4))


def _services(config: Config) -> Services:
    url = config.redis_url
    if url is None:
        raise ConfigError("redis_url is not set: set it (LLM_API_REDIS_URL), or use `make run`, which starts a Valkey")
    watch = RedisHealth(url)
    client = watch.client()
    jobs = config.jobs
    store = JobStore(client, model=config.model_name, ttl_seconds=jobs.ttl, max_queued=jobs.max_queued)
    return Services(
        config=config,
        redis=client,
        watch=watch,
        store=store,
        waiters=Waiters(url, client, store, max_waiters(config.server)),
        estimate=QueueEstimate(client, model=config.model_name),
        reaper=Reaper(connect(url), model=config.model_name, ttl_seconds=jobs.ttl, max_attempts=jobs.max_attempts),
        questions=TokenizerClient(watch.client(), config.model_name),
        webhooks=_webhook_sender(config, url),
        files=FileStore(client),
        batches=BatchStore(client, model=config.model_name, ttl_seconds=config.files.ttl),
        started_at=time.time(),
    )


def _webhook_sender(config: Config, redis_url: str) -> WebhookSender | None:
    """None: without a secret no request may ask for a webhook."""
    secret = config.webhooks.secret
    if secret is None:
        return None
    queue = WebhookQueue(connect(redis_url), config.model_name)
    return WebhookSender(queue, secret, allow_private=config.webhooks.allow_private)
