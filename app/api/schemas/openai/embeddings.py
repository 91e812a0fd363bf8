"""The body of `/v1/embeddings`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import post_load, validate

from app.api.schemas.embeddings import MAX_TEXTS
from app.api.schemas.fields import TextField, WholeNumber
from app.api.schemas.job import JobOptions
from app.api.schemas.openai.peers import fields_of_embedding_peers
from app.api.schemas.openai.requests import ModelRequestSchema, TextsOrTokens, is_one, shared_fields
from app.api.schemas.openai.unread_names import IGNORED_EVERYWHERE, ignored
from app.jobs.job import Text as TextOrTokens

MAX_DIMENSIONS = 65_536  # beyond every model


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBody(JobOptions):
    """is_one: `input` was sent as one text or its tokens, not as a list of these."""

    input: list[TextOrTokens]
    is_one: bool = False
    model: str | None = None
    dimensions: int | None = None
    encoding_format: str = "float"


class EmbeddingSchema(ModelRequestSchema):
    example: ClassVar = {"input": "A dog runs across the field."}

    elsewhere: ClassVar = {"prompt": "/v1/completions; here it is input", "messages": "/v1/chat/completions"}

    input = TextsOrTokens(
        shortest=1, most=MAX_TEXTS, required=True, metadata={"description": "Texts, or token ids of the model."}
    )
    dimensions = WholeNumber(
        validate=validate.Range(1, MAX_DIMENSIONS),
        metadata={
            "description": "Shorten the vectors to this number of dimensions and normalise them again; "
            "for models that were trained for it."
        },
    )
    encoding_format = TextField(
        validate=validate.OneOf(("float", "base64")),
        metadata={"description": "base64: the numbers as little-endian 32-bit floats, in base64."},
    )

    class Meta(ModelRequestSchema.Meta):
        include: ClassVar = {**ignored(*IGNORED_EVERYWHERE), **fields_of_embedding_peers()}

    @post_load(pass_original=True)
    def _body(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> EmbeddingBody:
        return EmbeddingBody(**shared_fields(EmbeddingBody, data), is_one=is_one(sent["input"]))
