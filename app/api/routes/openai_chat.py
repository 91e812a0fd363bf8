"""`/v1/chat/completions`: OpenAI's chat."""

from flask import Response

from app.api import idempotency
from app.api.json_response import EVENT_STREAM, JSON, json_answer
from app.api.openai import chat, choices, stream
from app.api.openai.envelope import Envelope
from app.api.openai.field_names import fields_called
from app.api.openapi import CACHE_STATUS, LOCATION, Blueprint, answer
from app.api.schemas.openai.answers import ChatCompletionSchema
from app.api.schemas.openai.chat import ChatBody, ChatSchema
from app.api.services import services

blueprint = Blueprint("openai_chat", __name__, description="OpenAI's API: chat.")


@blueprint.endpoint(
    "POST",
    "/v1/chat/completions",
    body=ChatSchema,
    parameters=[idempotency.PARAMETER],
    answers={
        200: answer(
            "The answer; with `stream: true` its chunks as server-sent events, the last one `[DONE]`.",
            {JSON: ChatCompletionSchema, EVENT_STREAM: None},
            LOCATION | CACHE_STATUS,
        )
    },
    problems=(400, 404, 409, 413, 500, 502, 503, 504),
)
def chat_completions(body: ChatBody) -> Response:
    """Answer a conversation, whose prompt is made with the model's own chat template.

    Each of `n` choices is a job; they are canceled when the client leaves, unless `on_disconnect` says `continue` or an
    `Idempotency-Key` came.
    """
    config = services().config
    plan = chat.plan(body, config)
    with fields_called(plan.field_names):
        if body.stream:
            return stream.respond(
                plan.requests,
                body.on_disconnect,
                write=lambda index, job: chat.ChatWriter(index, job, body),
                envelope=lambda first: Envelope.of(chat.CHUNK_OBJECT, chat.PREFIX, first, config),
                prompts=1,
                tells_usage=body.include_usage,
            )
        return json_answer(plan.answer(choices.run(plan.requests, body.on_disconnect)))
