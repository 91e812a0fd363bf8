"""`/jobs/{id}/events`: what happens to a job, as it happens and again later, on any replica."""

import re
from collections.abc import Generator, Iterator

from flask import Response, request

from app.api import dispatch, sse
from app.api.json_response import EVENT_STREAM
from app.api.openapi import Blueprint, answer
from app.api.request_parser import invalid_request
from app.api.routes.jobs import JOB_ID_PARAMETER
from app.api.services import services
from app.errors import LLMAPIError
from app.jobs.events import FROM_START, Event, read_events

blueprint = Blueprint("job_events", __name__, description="A job's events, live and after the fact.")

LOOK_SECONDS = 1.0  # the response's head is held back this long at most
_LOOKS_PER_COMMENT = int(sse.HEARTBEAT_SECONDS / LOOK_SECONDS)
_EVENT_ID = {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$"}  # each half below Redis's 64 bits
_RESUME = [
    {"in": "query", "name": "after", "schema": _EVENT_ID, "description": "Only events after this one."},
    {"in": "header", "name": "Last-Event-ID", "schema": _EVENT_ID, "description": "The same, as browsers send it."},
]
_ANSWER = answer(
    "Events named `started`, `delta` and `end`, their data JSON, each with the id to resume after; ends with `end`.",
    {EVENT_STREAM: None},
)


@blueprint.endpoint(
    "GET",
    "/jobs/<job_id>/events",
    parameters=[JOB_ID_PARAMETER, *_RESUME],
    answers={200: _ANSWER, 204: answer("The job has ended, and nothing comes after the event named.")},
    problems=(404, 422, 503),
)
def job_events(job_id: str) -> Response:
    """Follow a job from its beginning, or from the event after the one named.

    Works as long as the job is kept, on every replica; leaving never cancels the job.
    """
    job, after = dispatch.existing_job(job_id), _resume_after()
    if request.method == "HEAD":
        return _respond(iter(()))
    if job.status.is_final:
        (events,) = read_events(services().redis, [(job.id, after)])
        return _respond(map(sse.json_event, events)) if events else Response(status=204)
    services().store.follow(job.id)
    following = services().waiters.follow(job.id, after, heartbeat_seconds=LOOK_SECONDS)
    first = next(following)  # raises what forbids to follow, while that can still be a status
    response = _respond(_chunks(first, following))
    assert isinstance(following, Generator)
    response.call_on_close(following.close)
    return response


def _chunks(first: Event | None, following: Iterator[Event | None]) -> Iterator[bytes]:
    silent_looks = 0
    yield sse.COMMENT if first is None else sse.json_event(first)
    try:
        for event in following:
            silent_looks = 0 if event else silent_looks + 1
            if event:
                yield sse.json_event(event)
            elif silent_looks % _LOOKS_PER_COMMENT == 0:
                yield sse.COMMENT
    except LLMAPIError as error:
        yield sse.error_event(error)


def _respond(chunks: Iterator[bytes]) -> Response:
    return Response(chunks, content_type=EVENT_STREAM, headers=sse.HEADERS)


def _resume_after() -> str:
    """Raises InvalidRequest, naming where the id came from."""
    for name, value in (("Last-Event-ID", request.headers.get("Last-Event-ID")), ("after", request.args.get("after"))):
        if value is not None:
            if not re.fullmatch(_EVENT_ID["pattern"], value):
                raise invalid_request({name: ["Must be the id of an event, such as 1700000000000-0."]})
            return value
    return FROM_START
