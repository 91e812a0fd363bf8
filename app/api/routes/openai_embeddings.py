"""`/v1/embeddings`: OpenAI's embeddings."""

from flask import Response

from app.api import dispatch, idempotency
from app.api.json_response import JSON, json_answer
from app.api.openai import embeddings
from app.api.openai.field_names import fields_called
from app.api.openapi import CACHE_STATUS, LOCATION, Blueprint, answer
from app.api.schemas.openai.answers import EmbeddingAnswerSchema
from app.api.schemas.openai.embeddings import EmbeddingBody, EmbeddingSchema
from app.api.services import services

blueprint = Blueprint("openai_embeddings", __name__, description="OpenAI's API: embeddings.")


@blueprint.endpoint(
    "POST",
    "/v1/embeddings",
    body=EmbeddingSchema,
    parameters=[idempotency.PARAMETER],
    answers={
        200: answer("An L2-normalised vector for each text.", {JSON: EmbeddingAnswerSchema}, LOCATION | CACHE_STATUS)
    },
    problems=(400, 404, 409, 413, 500, 502, 503, 504),
)
def openai_embeddings(body: EmbeddingBody) -> Response:
    """Embed a text, or several in one go."""
    plan = embeddings.plan(body, services().config)
    with fields_called(plan.field_names):
        return json_answer(plan.answer([dispatch.run(plan.requests[0], body.on_disconnect)]))
