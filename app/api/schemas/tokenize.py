"""`/tokenize` and `/detokenize`: request and response bodies."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.fields import BoundedList, Flag, TextField
from app.api.schemas.openai.messages import Messages
from app.api.schemas.openai.prompt_end import NOT_BOTH, PromptEnd, PromptEndSchema, take_prompt_end
from app.api.schemas.openai.requests import token_ids
from app.api.schemas.openai.tools import MAX_TOOLS, ToolSchema
from app.api.schemas.request_schema import RequestSchema
from app.api.schemas.sampling import MAX_TOKEN_ID

MAX_TOKENS = 1_000_000
_ONE_OF = ("text", "prompt", "content", "messages")
_SPECIAL = ("add_special", "add_special_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeBody:
    """Either `messages` or a `text`, which was sent as `text_name`. prompt_end: see `ChatBody`."""

    model: str | None = None
    text: str = ""
    text_name: str = "text"
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    add_special: bool = True
    prompt_end: PromptEnd = field(default_factory=PromptEnd)


def _model() -> TextField:
    return TextField(metadata={"description": "The name of the served model, as in /v1/models."})


class TokenizeSchema(PromptEndSchema):
    example: ClassVar = {"text": "The capital of France is"}

    also: ClassVar = {**NOT_BOTH, "oneOf": [{"required": [name]} for name in _ONE_OF]}

    model = _model()
    text = TextField()
    prompt = TextField(metadata={"description": "Another name of text, used by vLLM."})
    content = TextField(metadata={"description": "Another name of text, used by llama-server."})
    messages = Messages(
        metadata={"description": "A conversation instead of a text; its prompt is made with the chat template."},
    )
    tools = BoundedList(
        fields.Nested(ToolSchema), validate=validate.Length(max=MAX_TOOLS), metadata={"description": "With messages."}
    )
    add_special = Flag(
        metadata={"description": "Add the tokens that the model wants around a prompt, as /generate does."}
    )
    add_special_tokens = Flag(metadata={"description": "Another name of add_special, used by vLLM."})

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> TokenizeBody:
        given = [name for name in _ONE_OF if name in data]
        if len(given) != 1:
            reason = "Send a text (prompt and content are other names of it), or messages."
            raise ValidationError({given[1] if given else "text": [f"{reason} Not both." if given else reason]})
        (name,) = given
        if name != "messages":
            data |= {"text": data.pop(name), "text_name": name}
        special = {data.pop(one) for one in _SPECIAL if one in data}
        if len(special) > 1:
            raise ValidationError({_SPECIAL[1]: [f"{' and '.join(_SPECIAL)} mean the same; send one of them."]})
        prompt_end = take_prompt_end(data)
        return TokenizeBody(**data, add_special=special != {False}, prompt_end=prompt_end)


class TokensSchema(Schema):
    tokens = fields.List(fields.Integer(), required=True)
    count = fields.Integer(required=True)


class TokenIds(fields.Field[list[int]]):
    """Ids of tokens. A list of them is checked as a whole: one by one, a million would take seconds."""

    def __init__(self) -> None:
        token = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
        about = {"description": "Ids of the model's tokens.", "type": "array", "items": token, "maxItems": MAX_TOKENS}
        super().__init__(required=True, metadata=about)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[int]:
        if not isinstance(value, list):
            raise ValidationError("Must be a list.")
        if len(value) > MAX_TOKENS:
            raise ValidationError(f"Must not have more than {MAX_TOKENS} items.")
        return list(token_ids(value))


class DetokenizeSchema(RequestSchema):
    example: ClassVar = {"tokens": [504, 3575, 282, 4649, 314]}

    model = _model()
    tokens = TokenIds()


class DetokenizedSchema(Schema):
    text = fields.String(required=True, metadata={"description": "Control tokens appear by their names."})
