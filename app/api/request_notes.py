"""What the access log and the metrics show of a request: its id, route, key and job. Never what it asks or gets.

The notes are in the WSGI environment, where the server finds them when the response has been sent
(`app.server.request_log`). The id is that of the header `X-Request-ID`, or a new one; the response has it.
"""

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from flask import Flask, Response, request

from app.api.schemas.job import JOB_ID

HEADER = "X-Request-ID"
_KEY = "llm_api.request_notes"
_ID = re.compile(r"[!-~]{1,128}")
_CONVERTER = re.compile(r"<(?:\w+:)?(\w+)>")


@dataclass(slots=True)
class RequestNotes:
    """began_at: of `time.perf_counter`. route: as the OpenAPI document has it; "": no route matched."""

    request_id: str
    began_at: float
    route: str
    key_name: str | None = None
    job_id: str | None = None


def register(app: Flask) -> None:
    """Note every request. Register it before what may reject one."""
    app.before_request(_begin)
    app.after_request(_show_id)


def notes_of(environ: Mapping[str, Any]) -> RequestNotes | None:
    """Return the notes of a request; None: the application has not begun to handle it."""
    return cast(RequestNotes | None, environ.get(_KEY))


def note_job(job_id: str) -> None:
    """Note the first job of the current request."""
    if (notes := notes_of(request.environ)) is not None and notes.job_id is None:
        notes.job_id = job_id


def note_key(name: str) -> None:
    """Note whose API key the current request has. name: that of the key, not the key."""
    if (notes := notes_of(request.environ)) is not None and name:
        notes.key_name = name


def _begin() -> None:
    rule = request.url_rule
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    notes = RequestNotes(
        request_id=given if _ID.fullmatch(given) else str(uuid.uuid4()),
        began_at=time.perf_counter(),
        route="" if rule is None else _route(rule.rule),
    )
    request.environ[_KEY] = notes
    job_id = (request.view_args or {}).get("job_id")
    if job_id is not None and JOB_ID.fullmatch(job_id):
        notes.job_id = job_id.lower()


def _show_id(response: Response) -> Response:
    if (notes := notes_of(request.environ)) is not None:
        response.headers[HEADER] = notes.request_id
    return response


@cache
def _route(rule: str) -> str:
    """Return a rule of Flask as a path of OpenAPI: `/jobs/{job_id}`."""
    return _CONVERTER.sub(r"{\1}", rule)
