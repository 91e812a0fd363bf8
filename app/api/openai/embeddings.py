"""Vectors as OpenAI's API tells them: shortened, and as text."""

import base64
import math
import struct
from typing import Any

from app.api import dispatch
from app.api.openai.envelope import check_model
from app.api.openai.plan import AnswerPlan
from app.api.schemas.openai.embeddings import EmbeddingBody
from app.config.settings import Config
from app.errors import InvalidRequest
from app.jobs.job import Job, Kind

_FIELD_NAMES = {"text.": "input."}

Vector = list[float]


def plan(body: EmbeddingBody, config: Config) -> AnswerPlan:
    """Raises ModelNotFound."""
    check_model(body.model, config.model_name)
    request = dispatch.job_request(Kind.EMBED, body, texts=tuple(body.input))

    def answer(jobs: list[Job]) -> dict[str, Any]:
        (job,) = jobs
        found = enumerate(_vectors(job, body))
        tokens = job.usage.prompt_tokens if job.usage else 0
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in found],
            "model": config.model_name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    return AnswerPlan(requests=[request], answer=answer, field_names=_FIELD_NAMES)


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
