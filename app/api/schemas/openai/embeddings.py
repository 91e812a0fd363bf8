"""The body of `/v1/embeddings`."""

from dataclasses import dataclass
from typing import Any

from marshmallow import fields, post_load, validate

from app.api.schemas.embeddings import MAX_TEXTS
from app.api.schemas.job_options import JobOptions, JobOptionsSchema, given
from app.api.schemas.json_fields import Text, WholeNumber
from app.api.schemas.openai.requests import IGNORED, TextsOrTokens
from app.api.schemas.strict import StrictSchema
from app.jobs.job import Text as TextOrTokens

MAX_DIMENSIONS = 65_536  # beyond every model


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBody(JobOptions):
    input: list[TextOrTokens]
    model: str | None = None
    dimensions: int | None = None
    encoding_format: str = "float"


class EmbeddingSchema(StrictSchema, JobOptionsSchema):
    input = TextsOrTokens(
        shortest=1, most=MAX_TEXTS, required=True, metadata={"description": "Texts, or ids of the model's own tokens."}
    )
    model = Text(allow_none=True, metadata={"description": "The served model's name, as /v1/models tells it."})
    dimensions = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_DIMENSIONS),
        metadata={"description": "Cut the vectors to so many numbers, normalised anew; for models trained for it."},
    )
    encoding_format = Text(
        allow_none=True,
        validate=validate.OneOf(("float", "base64")),
        metadata={"description": "base64: of the numbers as little-endian 32-bit floats."},
    )
    user = fields.Raw(allow_none=True, metadata={"description": f"Ignored. {IGNORED['user']}"})

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> EmbeddingBody:
        return EmbeddingBody(**{name: value for name, value in given(data).items() if name != "user"})
