"""`/v1/responses`: OpenAI's responses, which stay as long as their jobs do."""

from dataclasses import asdict
from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.access import OWNER_PARAMETER, current_principal, viewed_owner
from app.api.event_stream import stream_events
from app.api.ignored_fields import report_ignored
from app.api.json_response import EVENT_STREAM, JSON, json_response
from app.api.openai import responses
from app.api.openai.response_object import response_object
from app.api.openai.response_stream import ResponseEncoder
from app.api.openapi import IGNORED, LOCATION, UNENFORCED, Blueprint, describe_response
from app.api.request_context import KEY_PARAMETER, report_unenforced, services, submit
from app.api.routes.openai_completions import PROBLEMS, respond
from app.api.schemas.openai.response_bodies import (
    InputTokensSchema,
    ResponseDeletedSchema,
    ResponseObjectSchema,
)
from app.api.schemas.openai.responses import ResponseBody, ResponseQuerySchema, ResponseSchema
from app.errors import Conflict
from app.jobs.job import Job, JobRequest
from app.jobs.tokenizer_rpc import TokenizerOperation

blueprint = Blueprint("openai_responses", __name__, description="OpenAI's API: responses.")

RESPONSE_ID = {"in": "path", "name": "response_id", "schema": {"type": "string"}}
_PATH = "/v1/responses/<string(minlength=13):response_id>"  # `input_tokens` is no id: its methods are its own
_RESPONSE = "The response; as a stream its events, which end with `response.completed`, `.incomplete` or `.failed`."


@blueprint.endpoint(
    "POST",
    "/v1/responses",
    body=ResponseSchema,
    parameters=[KEY_PARAMETER],
    responses={
        200: describe_response(
            _RESPONSE, {JSON: ResponseObjectSchema, EVENT_STREAM: None}, LOCATION | UNENFORCED | IGNORED
        )
    },
    scope=Scope.INFERENCE,
    problems=PROBLEMS,
)
def create_response(body: ResponseBody) -> Response:
    """Answer a text or a conversation, at once or in the background.

    A response that is waited for or streamed is canceled when the client leaves, unless it runs in the background,
    `on_disconnect` says `continue` or an `Idempotency-Key` came.
    """
    plan = responses.plan(body, services().jobs, current_principal())
    if not body.background:
        return respond(plan, body)
    report_unenforced(plan.unenforced)
    report_ignored(plan.ignored)
    (request,) = plan.requests
    with plan.renaming_fields():
        job = submit(request, body)
    return _follow(job, request, -1) if body.stream else json_response(response_object(job, request))


@blueprint.endpoint(
    "POST",
    "/v1/responses/input_tokens",
    body=ResponseSchema,
    responses={200: describe_response("The number of tokens.", InputTokensSchema)},
    scope=Scope.INFERENCE,
    problems=PROBLEMS,
)
def count_input_tokens(body: ResponseBody) -> Response:
    """How many tokens the prompt of this request has: the `usage.input_tokens` of its response. It makes no job."""
    plan = responses.plan(body, services().jobs, current_principal())
    (request,) = plan.requests
    assert request.chat is not None, "a response is made from messages"
    with plan.renaming_fields():
        arguments = {"chat": asdict(request.chat), "add_special": True}
        tokens = services().tokenizer.call(TokenizerOperation.TOKENIZE, arguments)
    return json_response({"object": "response.input_tokens", "input_tokens": len(tokens)})


@blueprint.endpoint(
    "GET",
    _PATH,
    query=ResponseQuerySchema,
    parameters=[RESPONSE_ID, OWNER_PARAMETER],
    responses={200: describe_response(_RESPONSE, {JSON: ResponseObjectSchema, EVENT_STREAM: None})},
    scope=Scope.INFERENCE,
    problems=(400, 404, 503),
)
def read_response(query: dict[str, Any], response_id: str) -> Response:
    """A response as it is; with `stream` its events from the first, or from the one behind `starting_after`, on."""
    job, request = _existing(response_id)
    if query["stream"]:
        return _follow(job, request, query.get("starting_after", -1))
    return json_response(response_object(job, request))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/cancel",
    parameters=[RESPONSE_ID, OWNER_PARAMETER],
    responses={200: describe_response("The response; one that runs ends within a step.", ResponseObjectSchema)},
    scope=Scope.INFERENCE,
    problems=(404, 503),
)
def cancel_response(response_id: str) -> Response:
    """Cancel a response; one that has ended stays as it is."""
    job, request = _existing(response_id)
    return json_response(response_object(services().jobs.cancel(job), request))


@blueprint.endpoint(
    "DELETE",
    _PATH,
    parameters=[RESPONSE_ID, OWNER_PARAMETER],
    responses={200: describe_response("The response is forgotten.", ResponseDeletedSchema)},
    scope=Scope.INFERENCE,
    problems=(404, 409, 503),
)
def delete_response(response_id: str) -> Response:
    """Forget a response that has ended."""
    job, _ = _existing(response_id)
    if not services().jobs.store.delete(job):
        raise Conflict("this response has not ended; cancel it, and delete it then")
    return json_response({"id": response_id, "object": "response", "deleted": True})


def _existing(response_id: str) -> tuple[Job, JobRequest]:
    return responses.existing(response_id, services().jobs, viewed_owner())


def _follow(job: Job, request: JobRequest, starting_after: int) -> Response:
    """Stream a job that continues when the client leaves."""
    events = services().jobs.follow(job)
    return stream_events(events, lambda _: ResponseEncoder(job, request, starting_after), are_own=False)
