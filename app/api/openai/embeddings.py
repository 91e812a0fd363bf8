"""Vectors as OpenAI's API has them: shortened, and as text."""

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from app.api.job_service import JobService
from app.api.openai.envelope import shown_model
from app.api.openai.plan import RequestPlan
from app.api.schemas.openai.embeddings import EmbeddingBody
from app.errors import InvalidRequest
from app.jobs.job import Job, Kind
from app.jobs.principal import Principal

Vector = list[float]


def plan(body: EmbeddingBody, jobs: JobService, principal: Principal) -> RequestPlan:
    """Raises ModelNotFound, InvalidRequest (the webhook)."""
    adapters = jobs.adapters.chosen(body.model, (), "model", principal.models)
    request = jobs.make_request(Kind.EMBED, body, principal, texts=tuple(body.input), adapters=adapters)

    def make_body(made: Sequence[Job]) -> dict[str, Any]:
        (job,) = made
        tokens = job.usage.prompt_tokens if job.usage else 0
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(_vectors(job, body))
            ],
            "model": shown_model(request, jobs.config.model_name),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    names = {"text.0": "input"} if body.is_one else {"text.": "input."}
    return RequestPlan(requests=[request], make_body=make_body, field_names=names)


def _vectors(job: Job, body: EmbeddingBody) -> list[Vector] | list[str]:
    """Raises InvalidRequest where the model has fewer dimensions than asked for."""
    rows = (job.output.embeddings if job.output else None) or []
    if body.dimensions is not None:
        rows = [_shortened(row, body.dimensions) for row in rows]
    return [_as_text(row) for row in rows] if body.encoding_format == "base64" else rows


def _shortened(row: Vector, dimensions: int) -> Vector:
    if dimensions > len(row):
        reason = f"this model's vectors have {len(row)} dimensions; ask for fewer"
        raise InvalidRequest(f"dimensions: {reason}", errors={"dimensions": [reason]})
    kept = row[:dimensions]
    length = math.hypot(*kept)
    return [number / length for number in kept] if length else kept


def _as_text(row: Vector) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
