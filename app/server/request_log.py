"""Counts each request and logs it in one line, when its response has been sent."""

import logging
import time
from typing import Any

from app.api.metrics.process import count_request
from app.api.request_notes import notes_of
from app.config.log import log_event

_PROBES = frozenset({"/healthz", "/readyz", "/check", "/metrics"})
_PROBED = (200, 503)  # a service that is not ready is asked twice a second
_OF_PAGES = frozenset({"/web/{name}", "/docs/{name}", "/static/{filename}", "/live/queue", "/live/workers"})
_SERVED = (200, 304)

logger = logging.getLogger("app.access")


def record(environ: dict[str, Any], response: Any) -> None:
    """Record a request that the application has handled. response: gunicorn's."""
    notes = notes_of(environ)
    if notes is None or response is None:
        return
    seconds = time.perf_counter() - notes.began_at
    method, status = environ["REQUEST_METHOD"], response.status_code or 0
    count_request(method, notes.route, status, seconds)
    log_event(
        logger,
        logging.DEBUG if _is_routine(notes.route, status) else logging.INFO,
        f"{method} {notes.route or '-'} {status}",
        ms=round(seconds * 1000, 1),
        bytes=response.sent,
        key=notes.key_name,
        job=notes.job_id,
        request=notes.request_id,
    )


def _is_routine(route: str, status: int) -> bool:
    """Return whether the request repeats without news: a probe, or a file or live stream of a page in a browser."""
    return (route in _PROBES and status in _PROBED) or (route in _OF_PAGES and status in _SERVED)
