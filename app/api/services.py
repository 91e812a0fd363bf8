"""What every route needs, made once per process by the factory."""

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from app.api.batches.batches import BatchStore
from app.api.batches.files import FileStore
from app.api.queue_estimate import QueueEstimate
from app.api.redis_health import RedisHealth
from app.api.waiting.waiters import Waiters
from app.api.webhooks.sender import WebhookSender
from app.config.settings import Config
from app.jobs.reaper import Reaper
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from app.jobs.tokenizer_rpc import TokenizerClient

_EXTENSION = "llm_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`watch`, `reaper` and `webhooks` run where `factory.start_threads` was called. started_at: Unix seconds."""

    config: Config
    redis: RedisClient
    watch: RedisHealth
    store: JobStore
    waiters: Waiters
    estimate: QueueEstimate
    reaper: Reaper
    questions: TokenizerClient
    webhooks: WebhookSender | None
    files: FileStore
    batches: BatchStore
    started_at: float


def provide(app: Flask, made: Services) -> None:
    app.extensions[_EXTENSION] = made


def services() -> Services:
    """The services of the application that answers the current request."""
    return services_of(current_app)


def services_of(app: Flask) -> Services:
    return cast(Services, app.extensions[_EXTENSION])
