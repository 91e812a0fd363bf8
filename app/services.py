"""What every route needs, made once per process by the factory."""

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from app.batches.batches import BatchStore
from app.batches.files import FileStore
from app.contract.config import Config
from app.contract.job_store import JobStore
from app.contract.questions import Questions
from app.contract.reaper import Reaper
from app.contract.redis_client import RedisClient
from app.queue_estimate import QueueEstimate
from app.redis_watch import RedisWatch
from app.waiters import Waiters
from app.webhooks.sender import WebhookSender

_EXTENSION = "llm_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`watch`, `reaper` and `webhooks` run where `factory.start_threads` was called. started_at: Unix seconds."""

    config: Config
    redis: RedisClient
    watch: RedisWatch
    store: JobStore
    waiters: Waiters
    estimate: QueueEstimate
    reaper: Reaper
    questions: Questions
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
