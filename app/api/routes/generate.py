"""`/generate` waits for the text; `/agenerate` responds with the job, or streams the text."""

from flask import Response, request

from app.access.api_key import Scope
from app.api.access import current_principal
from app.api.event_stream import TextEncoder, stream_events
from app.api.json_response import EVENT_STREAM, JSON, PLAIN_TEXT, json_response
from app.api.openai.plan import renaming_fields
from app.api.openai.unenforced import of_params
from app.api.openapi import CACHE_STATUS, IGNORED, LOCATION, UNENFORCED, Blueprint, describe_response
from app.api.request_context import KEY_PARAMETER, open_jobs, report_unenforced, run_jobs, services, submit
from app.api.schemas.generate import GenerateBody, GenerateSchema
from app.api.schemas.job import JobSchema
from app.jobs.job import Chat, JobRequest, Kind

blueprint = Blueprint("generate", __name__, description="Prompts go in, text comes out.")

_PROBLEMS = (400, 409, 413, 422, 500, 502, 503, 504)
_TEXT = {"type": "string"}


@blueprint.endpoint(
    "POST",
    "/generate",
    body=GenerateSchema,
    parameters=[KEY_PARAMETER],
    responses={
        200: describe_response(
            "The text as a JSON string, or bare for `Accept: text/plain`; the job object for `details: true`.",
            {JSON: {"anyOf": [_TEXT, JobSchema]}, PLAIN_TEXT: _TEXT},
            LOCATION | CACHE_STATUS | UNENFORCED | IGNORED,
        )
    },
    scope=Scope.INFERENCE,
    problems=_PROBLEMS,
)
def generate(body: GenerateBody) -> Response:
    """Continue a prompt, or answer messages, and wait for the text.

    The job is canceled when the client leaves, unless `on_disconnect` says `continue` or an `Idempotency-Key` came.
    """
    with renaming_fields(body.sent_names):
        (job,) = run_jobs([_request(body, stream=False)], body)
    if body.details:
        return json_response(services().jobs.document(job))
    text = job.output.text if job.output else ""
    if _wants(PLAIN_TEXT):
        return Response(text, content_type=f"{PLAIN_TEXT}; charset=utf-8")
    return json_response(text)


@blueprint.endpoint(
    "POST",
    "/agenerate",
    body=GenerateSchema,
    parameters=[KEY_PARAMETER],
    responses={
        200: describe_response(
            "With `Accept: text/event-stream` or `stream: true`, or if the server's `generate.agenerate` says so: "
            "events whose data is the next piece of text and nothing else. The end of the response is the end of the "
            "text. What fails later comes as an event named `error` with a problem document.",
            {EVENT_STREAM: None},
            LOCATION | UNENFORCED | IGNORED,
        ),
        202: describe_response("The job, accepted.", JobSchema, LOCATION | UNENFORCED | IGNORED),
    },
    scope=Scope.INFERENCE,
    problems=_PROBLEMS,
)
def agenerate(body: GenerateBody) -> Response:
    """Continue a prompt, or answer messages, without waiting for the whole text.

    A stream's job is canceled when the client leaves, unless `on_disconnect` says `continue` or an `Idempotency-Key`
    came; without a stream the job continues by itself.
    """
    if _is_streamed(body):
        pending = open_jobs([_request(body, stream=True)], body, with_events=True)
        with renaming_fields(body.sent_names):
            return stream_events(pending, lambda _: TextEncoder(), renaming=lambda: renaming_fields(body.sent_names))
    job = submit(_request(body, stream=False), body)
    return json_response(services().jobs.document(job), 202)


def _is_streamed(body: GenerateBody) -> bool:
    by_default = body.stream is None and services().config.generate.agenerate == "stream"
    return bool(body.stream) or by_default or _wants(EVENT_STREAM)


def _request(body: GenerateBody, *, stream: bool) -> JobRequest:
    report_unenforced(of_params(body.params, services().config, body.sent_names))
    chat = None if body.messages is None else Chat(messages=body.messages, **body.prompt_end)
    jobs, principal = services().jobs, current_principal()
    name_of_lora = body.sent_names.get("params.lora", "params.lora")
    adapters = jobs.adapters.chosen(None, body.lora, name_of_lora, principal.models)
    content = {"prompt": body.prompt, "chat": chat, "params": body.params, "stream": stream}
    return jobs.make_request(Kind.GENERATE, body, principal, adapters=adapters, **content)


def _wants(media_type: str) -> bool:
    """Whether the client prefers this type to JSON; a client that accepts both alike (axios does) gets JSON."""
    if media_type not in request.headers.get("Accept", ""):
        return False
    return request.accept_mimetypes.best_match([JSON, media_type]) == media_type
