"""`/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: OpenAI's API without a memory."""

from collections.abc import Mapping
from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.access import current_principal
from app.api.event_stream import stream_events
from app.api.ignored_fields import report_ignored
from app.api.json_response import EVENT_STREAM, JSON, json_response
from app.api.openai import chat, completions, embeddings
from app.api.openai.plan import RequestPlan
from app.api.openapi import CACHE_STATUS, IGNORED, LOCATION, UNENFORCED, Blueprint, describe_response
from app.api.request_context import KEY_PARAMETER, open_jobs, report_unenforced, run_jobs, services
from app.api.schemas.job import JobOptions
from app.api.schemas.openai.chat import ChatBody, ChatSchema
from app.api.schemas.openai.completions import CompletionBody, CompletionSchema
from app.api.schemas.openai.embeddings import EmbeddingBody, EmbeddingSchema
from app.api.schemas.openai.response_bodies import ChatCompletionSchema, CompletionAnswerSchema, EmbeddingAnswerSchema

chat_blueprint = Blueprint("openai_chat", __name__, description="OpenAI's API: chat.")
completions_blueprint = Blueprint("openai_completions", __name__, description="OpenAI's API: completions.")
embeddings_blueprint = Blueprint("openai_embeddings", __name__, description="OpenAI's API: embeddings.")

PROBLEMS = (400, 404, 409, 413, 500, 502, 503, 504)
_STREAMED = "The response; with `stream: true` its chunks as server-sent events, the last one `[DONE]`."


def _responses(description: str, content: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    return {200: describe_response(description, content, LOCATION | CACHE_STATUS | UNENFORCED | IGNORED)}


@chat_blueprint.endpoint(
    "POST",
    "/v1/chat/completions",
    body=ChatSchema,
    parameters=[KEY_PARAMETER],
    responses=_responses(_STREAMED, {JSON: ChatCompletionSchema, EVENT_STREAM: None}),
    scope=Scope.INFERENCE,
    problems=PROBLEMS,
)
def chat_completions(body: ChatBody) -> Response:
    """Answer a conversation, whose prompt is made with the model's own chat template.

    Each of `n` choices is a job; they are canceled when the client leaves, unless `on_disconnect` says `continue` or an
    `Idempotency-Key` came.
    """
    return respond(chat.plan(body, services().jobs, current_principal()), body)


@completions_blueprint.endpoint(
    "POST",
    "/v1/completions",
    body=CompletionSchema,
    parameters=[KEY_PARAMETER],
    responses=_responses(_STREAMED, {JSON: CompletionAnswerSchema, EVENT_STREAM: None}),
    scope=Scope.INFERENCE,
    problems=PROBLEMS,
)
def completions_(body: CompletionBody) -> Response:
    """Continue one prompt or several; each choice of each of them is a job."""
    return respond(completions.plan(body, services().jobs, current_principal()), body)


@embeddings_blueprint.endpoint(
    "POST",
    "/v1/embeddings",
    body=EmbeddingSchema,
    parameters=[KEY_PARAMETER],
    responses=_responses("An L2-normalised vector for each text.", {JSON: EmbeddingAnswerSchema}),
    scope=Scope.INFERENCE,
    problems=PROBLEMS,
)
def openai_embeddings(body: EmbeddingBody) -> Response:
    """Embed a text, or several in one go."""
    return respond(embeddings.plan(body, services().jobs, current_principal()), body)


def respond(plan: RequestPlan, options: JobOptions) -> Response:
    """Make the jobs of a plan, and respond or stream. Raises what a job failed with before the first byte is sent."""
    report_unenforced(plan.unenforced)
    report_ignored(plan.ignored)
    with plan.renaming_fields():
        if plan.make_encoder is not None:
            pending = open_jobs(plan.requests, options, with_events=True)
            return stream_events(pending, plan.make_encoder, renaming=plan.renaming_fields)
        return json_response(plan.make_body(run_jobs(plan.requests, options)))
