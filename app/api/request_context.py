"""The context of the current request: API key and owner, idempotency key, services, and headers of its response.

Routes, the application's factory, `app.api.openapi` and `app.server` import this module. Everything below the routes
gets what it needs as arguments.
"""

import hashlib
import hmac
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flask import Flask, Response, after_this_request, current_app, g, request
from werkzeug.datastructures import Headers

from app.api.adapter_loading import AdapterLoading
from app.api.batches.batches import BatchStore
from app.api.batches.files import FileStore
from app.api.job_service import JobService
from app.api.live.views import LiveViews
from app.api.openai.unenforced import HEADER
from app.api.path_header import header_value
from app.api.pending_jobs import Caller, PendingJobs
from app.api.redis_health import RedisHealth
from app.api.request_notes import note_job, note_key
from app.api.request_parser import invalid_request
from app.api.schemas.job import job_path
from app.api.webhooks.sender import WebhookSender
from app.config.settings import Config
from app.errors import Unauthorized
from app.jobs.job import Job, JobRequest, OnDisconnect, OutputSource
from app.jobs.principal import ANONYMOUS_PRINCIPAL, Principal
from app.jobs.reaper import Reaper
from app.jobs.redis_client import RedisClient
from app.jobs.tokenizer_rpc import TokenizerClient

OPEN_PATHS = frozenset({"/healthz", "/check", "/", "/docs", "/openapi.json"})
"""Paths that need no API key: a browser has none to send for a page."""
METRICS_PATH = "/metrics"
_OPEN_FOLDERS = ("/docs/", "/static/", "/web/")  # files of the pages
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
_OTHER_KEY_HEADERS = ("api-key", "x-api-key", "x-goog-api-key")  # of clients of Azure, Anthropic and Google
_OWNER_DIGITS = 24  # hex digits: 96 bits, beyond collision; the key itself appears nowhere in Redis
_EXTENSION = "llm_api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What an application consists of, made once per process. started_at: Unix seconds."""

    config: Config
    redis: RedisClient
    redis_health: RedisHealth
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
    """Serve requests with these services. With `auth.api_keys` set, every path but the open ones needs one of them."""
    app.extensions[_EXTENSION] = services
    open_paths = OPEN_PATHS | {METRICS_PATH} if services.config.metrics.open else OPEN_PATHS
    digests = [hashlib.sha256(key.encode()).digest() for key in services.config.auth.api_keys]

    def identify() -> None:
        is_open = not digests or request.path in open_paths or request.path.startswith(_OPEN_FOLDERS)
        g.principal = ANONYMOUS_PRINCIPAL if is_open else _principal(request.headers, digests)
        note_key(g.principal.key_name)

    app.before_request(identify)


def services() -> Services:
    return services_of(current_app)


def services_of(app: Flask) -> Services:
    return cast(Services, app.extensions[_EXTENSION])


def current_principal() -> Principal:
    """Return whose jobs this request makes; without API keys that is `ANONYMOUS_PRINCIPAL` for all."""
    principal: Principal = g.principal
    return principal


def current_owner() -> str:
    """Return the owner whose jobs, files and batches this request sees."""
    return current_principal().owner


def current_caller() -> Caller:
    """Raises InvalidRequest, naming the header of the idempotency key."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise invalid_request(
            {KEY_HEADER: ["Must be 1 to 255 visible ASCII characters, no spaces; send a UUID, for example."]}
        )
    client = request.environ.get("gunicorn.socket")  # other servers do not show it
    return Caller(
        principal=current_principal(),
        idempotency_key=key,
        client_socket=client if isinstance(client, socket.socket) else None,
    )


def submit(job_request: JobRequest) -> Job:
    """Make a job that continues without this request. Raises what `JobService.submit` raises, InvalidRequest (key)."""
    caller = current_caller()
    job = services().jobs.submit(job_request, caller.principal, caller.idempotency_key)
    _add_header("Location", job_path(job.id))
    note_job(job.id)
    return job


def open_jobs(
    requests: Sequence[JobRequest], on_disconnect: OnDisconnect | None, *, with_events: bool = False
) -> PendingJobs:
    """Make the jobs of this request, which waits for them.

    The response has a Location header with the first job's path, even if it is an error. Raises what
    `JobService.begin_waiting` and `JobService.submit` raise, InvalidRequest (the idempotency key).
    """
    pending = services().jobs.begin_waiting(current_caller(), on_disconnect, with_events=with_events)
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


def run_jobs(requests: Sequence[JobRequest], on_disconnect: OnDisconnect | None) -> list[Job]:
    """Make the jobs of this request and wait until all have succeeded.

    Raises what `open_jobs` and `PendingJobs.results` raise.
    """
    with open_jobs(requests, on_disconnect) as pending:
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


def _principal(headers: Headers, digests: Sequence[bytes]) -> Principal:
    """Compare with every key, in constant time: the delay of the response reveals nothing. Raises Unauthorized."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    presented = hashlib.sha256(token.strip().encode("latin-1")).digest()  # latin-1: WSGI's spelling of bytes
    known = [hmac.compare_digest(presented, digest) for digest in digests]
    if scheme.lower() != "bearer" or not any(known):
        raise Unauthorized(_missing_key(headers, scheme, token.strip()))
    owner = f"key-{presented.hex()[:_OWNER_DIGITS]}"
    return Principal(owner=owner, tenant=owner)


def _missing_key(headers: Headers, scheme: str, token: str) -> str:
    """Return what is wrong with the key of a request, without the key."""
    if scheme.lower() == "bearer" and token:
        return (
            "Incorrect API key provided: the key in Authorization: Bearer <key> is not one of this server's; check it, "
            "also for the end of a line or quotes in it"
        )
    if scheme:
        return "the header Authorization has another form than Authorization: Bearer <key>; send it in this form"
    other = next((name for name in _OTHER_KEY_HEADERS if headers.get(name)), None)
    not_read = "" if other is None else f"; the header {other} is not read"
    return f"this server wants an API key{not_read}; send the header Authorization: Bearer <key>"
