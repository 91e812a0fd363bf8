"""`/tokenize` and `/detokenize`: request and response bodies."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.fields import Flag, RequestSchema, TextField, WholeNumber
from app.api.schemas.openai.messages import MAX_MESSAGES, MessageSchema
from app.api.schemas.openai.requests import MAX_TOKEN_ID
from app.api.schemas.openai.tools import ToolSchema

MAX_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeBody:
    """Either `messages` or a `text`."""

    text: str = ""
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    add_special: bool = True


class TokenizeSchema(RequestSchema):
    also: ClassVar = {"oneOf": [{"required": ["text"]}, {"required": ["messages"]}]}

    text = TextField()
    messages = fields.List(
        fields.Nested(MessageSchema),
        validate=validate.Length(min=1, max=MAX_MESSAGES),
        metadata={"description": "A conversation instead of a text; its prompt is made with the chat template."},
    )
    tools = fields.List(fields.Nested(ToolSchema), metadata={"description": "With messages."})
    add_special = Flag(
        metadata={"description": "Add the tokens that the model wants around a prompt, as /generate does."}
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> TokenizeBody:
        if ("text" in data) == ("messages" in data):
            raise ValidationError({"text": ["Send either a text or messages."]})
        return TokenizeBody(**data)


class TokensSchema(Schema):
    tokens = fields.List(fields.Integer(), required=True)
    count = fields.Integer(required=True)


class DetokenizeSchema(RequestSchema):
    tokens = fields.List(
        WholeNumber(validate=validate.Range(0, MAX_TOKEN_ID)),
        required=True,
        validate=validate.Length(max=MAX_TOKENS),
        metadata={"description": "Ids of the model's tokens."},
    )


class DetokenizedSchema(Schema):
    text = fields.String(required=True, metadata={"description": "Control tokens appear by their names."})
