"""`/tokenize` and `/detokenize`: bodies and answers."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.job_options import given
from app.api.schemas.json_fields import Flag, Text, WholeNumber
from app.api.schemas.openai.chat import MAX_MESSAGES
from app.api.schemas.openai.messages import MessageSchema
from app.api.schemas.openai.requests import MAX_TOKEN_ID
from app.api.schemas.openai.tools import ToolSchema
from app.api.schemas.strict import StrictSchema

MAX_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeBody:
    """Either `messages` or a `text`."""

    text: str = ""
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    add_special: bool = True


class TokenizeSchema(StrictSchema):
    also: ClassVar = {"oneOf": [{"required": ["text"]}, {"required": ["messages"]}]}

    text = Text(allow_none=True)
    messages = fields.List(
        fields.Nested(MessageSchema),
        allow_none=True,
        validate=validate.Length(min=1, max=MAX_MESSAGES),
        metadata={"description": "A conversation instead of a text: the prompt that the chat template makes of it."},
    )
    tools = fields.List(fields.Nested(ToolSchema), allow_none=True, metadata={"description": "With messages."})
    add_special = Flag(
        allow_none=True,
        metadata={"description": "With the tokens that the model wants around a prompt, as /generate reads it."},
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> TokenizeBody:
        data = given(data)
        if ("text" in data) == ("messages" in data):
            raise ValidationError({"text": ["Send either a text or messages."]})
        return TokenizeBody(**data)


class TokensSchema(Schema):
    tokens = fields.List(fields.Integer(), required=True)
    count = fields.Integer(required=True)


class DetokenizeSchema(StrictSchema):
    tokens = fields.List(
        WholeNumber(validate=validate.Range(0, MAX_TOKEN_ID)),
        required=True,
        validate=validate.Length(max=MAX_TOKENS),
        metadata={"description": "Ids of the model's tokens."},
    )


class DetokenizedSchema(Schema):
    text = fields.String(required=True, metadata={"description": "Control tokens by their names."})
