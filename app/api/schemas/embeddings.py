"""The request and response bodies of `/embeddings`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import post_load

from app.api.schemas.fields import TextOrTexts
from app.api.schemas.job import JobOptions, JobOptionsSchema
from app.api.schemas.openai.unread_names import rejected

MAX_TEXTS = 2048  # as in OpenAI's API


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsBody(JobOptions):
    text: str | list[str]

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)


class EmbeddingsSchema(JobOptionsSchema):
    example: ClassVar = {"text": "A dog runs across the field."}

    text = TextOrTexts(
        fewest=1, most=MAX_TEXTS, required=True, metadata={"description": "One text, or a list of texts."}
    )

    class Meta(JobOptionsSchema.Meta):
        include: ClassVar = rejected(
            {"input": "this is not /v1/embeddings. The base URL for OpenAI's clients ends in /v1"}
        )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> EmbeddingsBody:
        return EmbeddingsBody(**data)


_ROW: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
EMBEDDINGS_ANSWER: dict[str, Any] = {"anyOf": [_ROW, {"type": "array", "items": _ROW}]}
