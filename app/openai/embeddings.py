"""Vectors as OpenAI's API tells them: shortened, and as text."""

import base64
import math
import struct

from app.contract.errors import InvalidRequest
from app.contract.jobs import Job
from app.schemas.openai.embeddings import EmbeddingBody

FIELD_NAMES = {"text.": "input."}

Vector = list[float]


def vectors(job: Job, body: EmbeddingBody) -> list[Vector] | list[str]:
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
