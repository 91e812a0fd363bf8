"""`/live/...`: what the page shows as it changes. No part of the documented API: it changes with the page."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flask
import redis
from flask import Response

from app.access.api_key import Scope
from app.api.access import current_key, current_principal, key_watch, viewed_owner
from app.api.event_stream import COMMENT, HEADERS, HEARTBEAT_SECONDS
from app.api.json_response import EVENT_STREAM, json_response
from app.api.live.changes import encode_changes, encode_trouble
from app.api.live.queue import Viewer
from app.api.live.views import Next
from app.api.problems import store_unavailable
from app.api.request_context import services
from app.errors import JobNotFound

pages = flask.Blueprint("live", __name__)
SCOPES: Mapping[str, Scope | None] = {
    "live.live_queue": Scope.JOBS,
    "live.live_workers": None,
    "live.live_job": Scope.JOBS,
    "live.live_key": None,
}
"""What an API key needs for each, as `Blueprint.endpoint` declares it for the routes of the document."""


@pages.get("/live/queue")
def live_queue() -> Response:
    """Stream the queue: all jobs as lines, more of those that the caller may open, and its batches."""
    principal, key, views = current_principal(), current_key(), services().live
    sees_all = key is not None and key.allows(Scope.ADMIN)
    viewer = Viewer(principal.owner, principal.tenant, sees_all=sees_all)
    return _stream(lambda after: views.queue(after, viewer))


@pages.get("/live/workers")
def live_workers() -> Response:
    """Stream the states of the workers."""
    return _stream(services().live.workers)


@pages.get("/live/jobs/<job_id>")
def live_job(job_id: str) -> Response:
    """Return a job with its request. Raises JobNotFound."""
    jobs = services().jobs
    job = jobs.read(job_id, viewed_owner())
    request: Mapping[str, Any] | None = None
    with contextlib.suppress(JobNotFound):  # a long one goes with the end of its job
        request = jobs.store.read_request(job.id).to_json()
    return json_response({**jobs.document(job), "request": request})


@pages.get("/live/key")
def live_key() -> Response:
    """Return what the caller's API key is and may do; null where none is needed."""
    key = current_key()
    scopes = [] if key is None else [scope.value for scope in Scope if key.allows(scope)]
    return json_response(None if key is None else {"id": key.id, "name": key.name, "scopes": scopes})


def _stream(next_state: Callable[[int], Next]) -> Response:
    """Stream a view until the client leaves, its key is revoked or this process stops.

    Raises TooManyWaiters, ShuttingDown.
    """
    waiters, views = services().jobs.waiters, services().live
    with contextlib.ExitStack() as resources:
        resources.enter_context(waiters.admit_request())  # it occupies a thread, as a request that waits for a job does
        is_valid = key_watch()
        body = _changes(next_state, lambda: views.has_ended or not is_valid())
        response = Response(body, content_type=EVENT_STREAM, headers=HEADERS)
        response.call_on_close(resources.pop_all().close)
    return response


def _changes(next_state: Callable[[int], Next], is_over: Callable[[], bool]) -> Iterator[bytes]:
    sent: Mapping[str, Any] = {}
    trouble = b""
    number, sent_at = 0, time.monotonic()
    while not is_over():
        number, state = next_state(number)
        if isinstance(state, redis.RedisError):
            piece = b"" if trouble else encode_trouble(store_unavailable(state).detail)
            trouble = trouble or piece
            sent = {}
        else:
            piece, sent, trouble = encode_changes(sent, state), state, b""
        if piece or time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
            yield piece or COMMENT
            sent_at = time.monotonic()
