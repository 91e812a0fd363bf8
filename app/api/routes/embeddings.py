"""`/embeddings`: texts become vectors."""

from flask import Response

from app.access.api_key import Scope
from app.api.access import current_principal
from app.api.json_response import JSON, json_response
from app.api.openai.plan import renaming_fields
from app.api.openapi import CACHE_STATUS, LOCATION, Blueprint, describe_response
from app.api.request_context import KEY_PARAMETER, run_jobs, services
from app.api.schemas.embeddings import EMBEDDINGS_ANSWER, EmbeddingsBody, EmbeddingsSchema
from app.jobs.job import Kind

blueprint = Blueprint("embeddings", __name__, description="Texts as vectors.")


@blueprint.endpoint(
    "POST",
    "/embeddings",
    body=EmbeddingsSchema,
    parameters=[KEY_PARAMETER],
    responses={
        200: describe_response(
            "One L2-normalised vector; for a list of texts a list of them.",
            {JSON: EMBEDDINGS_ANSWER},
            LOCATION | CACHE_STATUS,
        )
    },
    scope=Scope.INFERENCE,
    problems=(400, 409, 413, 422, 500, 502, 503, 504),
)
def embeddings(body: EmbeddingsBody) -> Response:
    """Embed a text, or several in one go."""
    jobs, principal = services().jobs, current_principal()
    adapters = jobs.adapters.chosen(None, (), "model", principal.models)
    job_request = jobs.make_request(Kind.EMBED, body, principal, adapters=adapters, texts=body.texts)
    with renaming_fields({"text.0": "text"} if isinstance(body.text, str) else {}):
        (job,) = run_jobs([job_request], body)
    rows = (job.output.embeddings if job.output else None) or []
    return json_response(rows[0] if isinstance(body.text, str) else rows)
