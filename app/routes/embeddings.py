"""`/embeddings`: texts become vectors."""

from flask import Response

from app import dispatch, idempotency
from app.contract.jobs import JobRequest, Kind
from app.json_answer import JSON, json_answer
from app.openapi import LOCATION, Blueprint, answer
from app.schemas.embeddings import EMBEDDINGS_ANSWER, EmbeddingsBody, EmbeddingsSchema

blueprint = Blueprint("embeddings", __name__, description="Texts as vectors.")


@blueprint.endpoint(
    "POST",
    "/embeddings",
    body=EmbeddingsSchema,
    parameters=[idempotency.PARAMETER],
    answers={
        200: answer(
            "One L2-normalised vector; for a list of texts a list of them.", {JSON: EMBEDDINGS_ANSWER}, LOCATION
        )
    },
    problems=(400, 409, 413, 422, 500, 503, 504),
)
def embeddings(body: EmbeddingsBody) -> Response:
    """Embed a text, or several in one go."""
    job_request = JobRequest(
        kind=Kind.EMBED,
        texts=body.texts,
        priority=body.priority,
        timeout_seconds=dispatch.timeout_seconds(body),
        expires_in_seconds=body.expires_in,
        ttl_seconds=body.ttl,
    )
    job = dispatch.run(job_request, body.on_disconnect)
    rows = (job.output.embeddings if job.output else None) or []
    return json_answer(rows[0] if isinstance(body.text, str) else rows)
