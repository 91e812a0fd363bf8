"""`/jobs/{id}/events`: what happens to a job, as it happens and again later, on any replica."""

from flask import Response, request

from app.access.api_key import Scope
from app.api.access import OWNER_PARAMETER, viewed_owner
from app.api.event_stream import HEADERS, JSONEncoder, stream_events
from app.api.json_response import EVENT_STREAM
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.request_parser import invalid_request
from app.api.routes.jobs import JOB_ID_PARAMETER
from app.jobs.events import EVENT_ID_PATTERN, FROM_START, is_event_id

blueprint = Blueprint("job_events", __name__, description="A job's events, live and after the fact.")

_EVENT_ID = {"type": "string", "pattern": EVENT_ID_PATTERN}
_RESUME = [
    {"in": "query", "name": "after", "schema": _EVENT_ID, "description": "Only events after this one."},
    {"in": "header", "name": "Last-Event-ID", "schema": _EVENT_ID, "description": "The same, as browsers send it."},
]
_RESPONSE = describe_response(
    "Events named `started`, `delta` and `end`, their data JSON, each with the id to resume after; ends with `end`.",
    {EVENT_STREAM: None},
)


@blueprint.endpoint(
    "GET",
    "/jobs/<job_id>/events",
    parameters=[JOB_ID_PARAMETER, OWNER_PARAMETER, *_RESUME],
    responses={200: _RESPONSE, 204: describe_response("The job has ended, and nothing comes after the event named.")},
    scope=Scope.JOBS,
    problems=(404, 422, 503),
)
def job_events(job_id: str) -> Response:
    """Follow a job from its beginning, or from the event after the one named.

    Works as long as the job is kept, on every replica; leaving never cancels the job.
    """
    jobs = services().jobs
    job, after = jobs.read(job_id, viewed_owner()), _resume_after()
    if request.method == "HEAD":
        return Response(content_type=EVENT_STREAM, headers=HEADERS)
    events = jobs.follow(job, after)
    if events.has_ended:
        return Response(status=204)
    return stream_events(events, lambda _: JSONEncoder(), are_own=False)


def _resume_after() -> str:
    """Raises InvalidRequest, naming where the id came from."""
    for name, value in (("Last-Event-ID", request.headers.get("Last-Event-ID")), ("after", request.args.get("after"))):
        if value is not None:
            if not is_event_id(value):
                raise invalid_request({name: ["Must be the id of an event, such as 1700000000000-0."]})
            return value
    return FROM_START
