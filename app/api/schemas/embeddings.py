"""The body of `/embeddings` and its answer."""

from dataclasses import dataclass
from typing import Any

from marshmallow import post_load

from app.api.schemas.job_options import JobOptions, JobOptionsSchema, given
from app.api.schemas.json_fields import TextOrTexts
from app.api.schemas.strict import StrictSchema

MAX_TEXTS = 2048  # as OpenAI's API has it


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsBody(JobOptions):
    text: str | list[str]

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)


class EmbeddingsSchema(StrictSchema, JobOptionsSchema):
    text = TextOrTexts(
        longest=None,
        fewest=1,
        most=MAX_TEXTS,
        required=True,
        metadata={"description": "One text, or a list of texts."},
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> EmbeddingsBody:
        return EmbeddingsBody(**given(data))


_ROW: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
EMBEDDINGS_ANSWER: dict[str, Any] = {"anyOf": [_ROW, {"type": "array", "items": _ROW}]}
