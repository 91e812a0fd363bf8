"""`/v1/responses`: OpenAI's responses, which stay as long as their jobs do."""

import contextlib
import itertools
from collections.abc import Generator, Iterator
from typing import Any

from flask import Response

from app.api import dispatch, idempotency, sse
from app.api.json_response import EVENT_STREAM, JSON, json_answer
from app.api.openai import responses
from app.api.openai.choices import Choices, admitted
from app.api.openai.field_names import fields_called
from app.api.openai.plan import AnswerPlan
from app.api.openai.response_stream import ResponseStream
from app.api.openapi import LOCATION, Blueprint, answer
from app.api.schemas.openai.answers import ResponseDeletedSchema, ResponseObjectSchema
from app.api.schemas.openai.responses import ResponseBody, ResponseQuerySchema, ResponseSchema
from app.api.services import services
from app.errors import Conflict
from app.jobs.events import FROM_START, Event, EventType, read_events
from app.jobs.job import Job, JobError, JobRequest, Status

blueprint = Blueprint("openai_responses", __name__, description="OpenAI's API: responses.")

RESPONSE_ID = {"in": "path", "name": "response_id", "schema": {"type": "string"}}
_PATH = "/v1/responses/<response_id>"
_RESPONSE = "The response; as a stream its events, which end with `response.completed`, `.incomplete` or `.failed`."


@blueprint.endpoint(
    "POST",
    "/v1/responses",
    body=ResponseSchema,
    parameters=[idempotency.PARAMETER],
    answers={200: answer(_RESPONSE, {JSON: ResponseObjectSchema, EVENT_STREAM: None}, LOCATION)},
    problems=(400, 404, 409, 413, 500, 502, 503, 504),
)
def create_response(body: ResponseBody) -> Response:
    """Answer a text or a conversation, at once or in the background.

    A response that is waited for or streamed is canceled when the client leaves, unless it runs in the background,
    `on_disconnect` says `continue` or an `Idempotency-Key` came.
    """
    plan = responses.plan(body, services().config)
    (request,) = plan.requests
    with fields_called(plan.field_names):
        if body.background:
            job = dispatch.admit(request)
            return _follow(job, request, -1) if body.stream else json_answer(responses.response_object(job, request))
        if body.stream:
            return _stream(plan, body)
        return json_answer(plan.answer([dispatch.run(request, body.on_disconnect)]))


@blueprint.endpoint(
    "GET",
    _PATH,
    query=ResponseQuerySchema,
    parameters=[RESPONSE_ID],
    answers={200: answer(_RESPONSE, {JSON: ResponseObjectSchema, EVENT_STREAM: None})},
    problems=(400, 404, 503),
)
def read_response(query: dict[str, Any], response_id: str) -> Response:
    """A response as it is; with `stream` its events from the first, or from the one behind `starting_after`, on."""
    job, request = responses.existing(response_id)
    if query["stream"]:
        return _follow(job, request, query.get("starting_after", -1))
    return json_answer(responses.response_object(job, request))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/cancel",
    parameters=[RESPONSE_ID],
    answers={200: answer("The response; one that runs ends within a step.", ResponseObjectSchema)},
    problems=(404, 503),
)
def cancel_response(response_id: str) -> Response:
    """Cancel a response; one that has ended stays as it is."""
    job, request = responses.existing(response_id)
    services().store.cancel(job.id)
    return json_answer(responses.response_object(services().store.read(job.id), request))


@blueprint.endpoint(
    "DELETE",
    _PATH,
    parameters=[RESPONSE_ID],
    answers={200: answer("The response is forgotten.", ResponseDeletedSchema)},
    problems=(404, 409, 503),
)
def delete_response(response_id: str) -> Response:
    """Forget a response that has ended."""
    job, _ = responses.existing(response_id)
    if not services().store.forget(job):
        raise Conflict("this response has not ended; cancel it, and delete it then")
    return json_answer({"id": response_id, "object": "response", "deleted": True})


def _stream(plan: AnswerPlan, body: ResponseBody) -> Response:
    """Of a new job, which ends when the client leaves. Raises what it failed with before it said anything."""
    with contextlib.ExitStack() as resources:
        choices = resources.enter_context(admitted(plan.requests, body.on_disconnect, stream=True))
        (job,), (request,) = choices.jobs, plan.requests
        events = _events(choices)
        held = _until_it_speaks(events)
        stream = ResponseStream(job, request)
        response = _respond(stream.chunks(itertools.chain(held, events)))
        response.call_on_close(resources.pop_all().close)
    return response


def _until_it_speaks(events: Iterator[Event | None]) -> list[Event | None]:
    """Until then an error can still be a status. A silent while is as good as words."""
    held: list[Event | None] = []
    for event in events:
        held.append(event)
        if event is not None and event.type is EventType.END:
            error = event.data.get("error")
            dispatch.raise_unless_succeeded(Status(event.data["status"]), JobError(**error) if error else None)
        if event is None or event.type is not EventType.STARTED:
            break
    return held


def _events(choices: Choices) -> Iterator[Event | None]:
    while not choices.has_ended:
        news = choices.next(sse.HEARTBEAT_SECONDS)
        event = None if news is None else news[1]
        assert not isinstance(event, Job)
        yield event


def _follow(job: Job, request: JobRequest, starting_after: int) -> Response:
    """Of a job that goes on when the client leaves."""
    stream = ResponseStream(job, request, starting_after)
    if job.status.is_final:
        (events,) = read_events(services().redis, [(job.id, FROM_START)])
        return _respond(stream.chunks(events))
    services().store.follow(job.id)
    following = services().waiters.follow(job.id, FROM_START, heartbeat_seconds=sse.HEARTBEAT_SECONDS)
    response = _respond(stream.chunks(following))
    assert isinstance(following, Generator)
    response.call_on_close(following.close)
    return response


def _respond(chunks: Iterator[bytes]) -> Response:
    return Response(chunks, content_type=EVENT_STREAM, headers=sse.HEADERS)
