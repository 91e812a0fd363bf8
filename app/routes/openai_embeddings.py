"""`/v1/embeddings`: OpenAI's embeddings."""

from flask import Response

from app import dispatch, idempotency
from app.contract.jobs import Kind
from app.json_answer import JSON, json_answer
from app.openai.embeddings import FIELD_NAMES, vectors
from app.openai.envelope import check_model
from app.openai.field_names import fields_called
from app.openapi import LOCATION, Blueprint, answer
from app.schemas.openai.answers import EmbeddingAnswerSchema
from app.schemas.openai.embeddings import EmbeddingBody, EmbeddingSchema
from app.services import services

blueprint = Blueprint("openai_embeddings", __name__, description="OpenAI's API: embeddings.")


@blueprint.endpoint(
    "POST",
    "/v1/embeddings",
    body=EmbeddingSchema,
    parameters=[idempotency.PARAMETER],
    answers={200: answer("An L2-normalised vector for each text.", {JSON: EmbeddingAnswerSchema}, LOCATION)},
    problems=(400, 404, 409, 413, 500, 502, 503, 504),
)
def openai_embeddings(body: EmbeddingBody) -> Response:
    """Embed a text, or several in one go."""
    model = services().config.model_name
    check_model(body.model, model)
    with fields_called(FIELD_NAMES):
        job = dispatch.run(dispatch.job_request(Kind.EMBED, body, texts=tuple(body.input)), body.on_disconnect)
        found = vectors(job, body)
    tokens = job.usage.prompt_tokens if job.usage else 0
    return json_answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
