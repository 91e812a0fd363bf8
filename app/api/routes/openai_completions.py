"""`/v1/completions`: OpenAI's completions, of prompts as they are."""

from flask import Response

from app.api import idempotency
from app.api.json_response import EVENT_STREAM, JSON, json_answer
from app.api.openai import choices, completions, stream
from app.api.openai.envelope import Envelope
from app.api.openai.field_names import fields_called
from app.api.openapi import CACHE_STATUS, LOCATION, Blueprint, answer
from app.api.schemas.openai.answers import CompletionAnswerSchema
from app.api.schemas.openai.completions import CompletionBody, CompletionSchema
from app.api.services import services

blueprint = Blueprint("openai_completions", __name__, description="OpenAI's API: completions.")


@blueprint.endpoint(
    "POST",
    "/v1/completions",
    body=CompletionSchema,
    parameters=[idempotency.PARAMETER],
    answers={
        200: answer(
            "The answer; with `stream: true` its chunks as server-sent events, the last one `[DONE]`.",
            {JSON: CompletionAnswerSchema, EVENT_STREAM: None},
            LOCATION | CACHE_STATUS,
        )
    },
    problems=(400, 404, 409, 413, 500, 502, 503, 504),
)
def completions_(body: CompletionBody) -> Response:
    """Continue one prompt or several; each answer to each of them is a job."""
    config = services().config
    plan = completions.plan(body, config)
    with fields_called(plan.field_names):
        if body.stream:
            return stream.respond(
                plan.requests,
                body.on_disconnect,
                write=lambda index, _: completions.CompletionWriter(index, body),
                envelope=lambda first: Envelope.of(completions.OBJECT, completions.PREFIX, first, config),
                prompts=len(body.prompts),
                tells_usage=body.include_usage,
            )
        return json_answer(plan.answer(choices.run(plan.requests, body.on_disconnect)))
