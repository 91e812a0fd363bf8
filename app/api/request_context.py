"""The context of the current request: its caller, idempotency key, services, and headers of its response.

Routes, the application's factory, `app.api.openapi` and `app.server` import this module. Everything below the routes
gets what it needs as arguments.
"""

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flask import Flask, Response, after_this_request, current_app, request

from app.access.authentication import Authentication
from app.api.access import current_principal
from app.api.adapter_loading import AdapterLoading
from app.api.batches.batches import BatchStore
from app.api.batches.files import FileStore
from app.api.job_service import JobService
from app.api.live.views import LiveViews
from app.api.openai.unenforced import HEADER
from app.api.path_header import header_value
from app.api.pending_jobs import Caller, PendingJobs
from app.api.redis_health import RedisHealth
from app.api.request_notes import note_job
from app.api.request_parser import invalid_request
from app.api.schemas.job import JobOptions, job_path
from app.api.webhooks.sender import WebhookSender
from app.config.settings import Config
from app.jobs.job import Job, JobRequest, OutputSource
from app.jobs.reaper import Reaper
from app.jobs.redis_client import RedisClient
from app.jobs.tokenizer_rpc import TokenizerClient

KEY_HEADER = "Idempotency-Key"
KEY_PARAMETER = {
    "in": "header",
    "name": KEY_HEADER,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "description": "Of your choice, a UUID for example. The same request with the same key makes no second job: it "
    "gets the first one's outcome, as long as that job is kept. Another request with the same key gets 409. "
    "With a key, `on_disconnect` is `continue` unless the body says otherwise.",
}
_KEY = re.compile(r"[!-~]{1,255}")
_NOT_WHILE_WAITING = (
    "Not for a request that waits for its response or streams it. Send it to /agenerate without a stream, with "
    "background: true to /v1/responses, or with a batch."
)
_EXTENSION = "llm_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What an application consists of, made once per process. started_at: Unix seconds."""

    config: Config
    redis: RedisClient
    redis_health: RedisHealth
    authentication: Authentication
    jobs: JobService
    adapter_loading: AdapterLoading
    files: FileStore
    batches: BatchStore
    tokenizer: TokenizerClient
    webhooks: WebhookSender | None
    live: LiveViews
    reaper: Reaper
    started_at: float


def register(app: Flask, services: Services) -> None:
    """Serve requests with these services."""
    app.extensions[_EXTENSION] = services


def services() -> Services:
    return services_of(current_app)


def services_of(app: Flask) -> Services:
    return cast(Services, app.extensions[_EXTENSION])


def current_caller(options: JobOptions) -> Caller:
    """Raises InvalidRequest, naming the header of the idempotency key."""
    key = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY.fullmatch(key):
        raise invalid_request(
            {KEY_HEADER: ["Must be 1 to 255 visible ASCII characters, no spaces; send a UUID, for example."]}
        )
    client = request.environ.get("gunicorn.socket")  # other servers do not show it
    return Caller(
        principal=current_principal().with_label(options.user),
        idempotency_key=key,
        client_socket=client if isinstance(client, socket.socket) else None,
    )


def submit(job_request: JobRequest, options: JobOptions) -> Job:
    """Make a job that continues without this request. Raises what `JobService.submit` raises, InvalidRequest (key)."""
    caller = current_caller(options)
    job = services().jobs.submit(job_request, caller.principal, caller.idempotency_key)
    _add_header("Location", job_path(job.id))
    note_job(job.id)
    return job


def open_jobs(requests: Sequence[JobRequest], options: JobOptions, *, with_events: bool = False) -> PendingJobs:
    """Make the jobs of this request, which waits for them.

    The response has a Location header with the first job's path, even if it is an error. Raises what
    `JobService.begin_waiting` and `JobService.submit` raise, InvalidRequest (the idempotency key, a job for later).
    """
    if options.not_before is not None and options.not_before.at > time.time():
        raise invalid_request({"not_before": [_NOT_WHILE_WAITING]})
    pending = services().jobs.begin_waiting(current_caller(options), options.on_disconnect, with_events=with_events)
    try:
        pending.submit(requests)
    except BaseException:
        pending.close()
        raise
    finally:
        if pending.jobs:
            _add_header("Location", job_path(pending.jobs[0].id))
            note_job(pending.jobs[0].id)
    return pending


def run_jobs(requests: Sequence[JobRequest], options: JobOptions) -> list[Job]:
    """Make the jobs of this request and wait until all have succeeded.

    Raises what `open_jobs` and `PendingJobs.results` raise.
    """
    with open_jobs(requests, options) as pending:
        jobs = pending.results()
    if all(job.metrics is not None and job.metrics.source is OutputSource.CACHED for job in jobs):
        _add_header("Cache-Status", "llm-api; hit")  # RFC 9211
    return jobs


def report_unenforced(paths: Sequence[str]) -> None:
    """Name in a header of the response which keywords of the request's JSON Schemas the output need not follow."""
    if paths:
        _add_header(HEADER, header_value(paths))


def _add_header(name: str, value: str) -> None:
    """Add a header to the response of this request, even if it is an error."""

    def add(response: Response) -> Response:
        response.headers[name] = value
        return response

    after_this_request(add)
