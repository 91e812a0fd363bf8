"""`messages` of a chat: OpenAI's shape, text only. What comes out is what chat templates expect."""

from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.job_options import given
from app.api.schemas.json_fields import Text
from app.api.schemas.strict import StrictSchema

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
LEGACY_CALL_ID = "function0"  # for `function_call`, which had none; nine letters, as Mistral's template wants them
_SPEAKERS_ONLY = {"tool_calls": "assistant", "function_call": "assistant", "refusal": "assistant"}
_PARTS = ("text", "refusal")


class Content(fields.Field[str]):
    """A text, or a list of text parts, which become one text with a line each."""

    def __init__(self, **kwargs: Any) -> None:
        parts = [
            {
                "type": "object",
                "properties": {"type": {"type": "string", "enum": [kind]}, kind: {"type": "string"}},
                "required": ["type", kind],
            }
            for kind in _PARTS
        ]
        shapes = [{"type": "string"}, {"type": "array", "items": {"anyOf": parts}}, {"type": "null"}]
        super().__init__(allow_none=True, metadata={"anyOf": shapes}, **kwargs)
        self._text = Text()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, list):
            return "\n".join(self._part(index, part) for index, part in enumerate(value))
        if not isinstance(value, str):
            raise ValidationError("Must be a string or a list of text parts.")
        return self._text.deserialize(value) or ""

    def _part(self, index: int, part: Any) -> str:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS:
            shown = kind if isinstance(kind, str) else "an unknown part"
            raise ValidationError({str(index): [f"{shown[:40]} is not served: this model reads text only."]})
        try:
            return self._text.deserialize(part.get(kind)) or ""
        except ValidationError as error:
            raise ValidationError({str(index): {kind: error.messages}}) from None


class CalledFunctionSchema(StrictSchema):
    name = Text(required=True)
    arguments = Text(required=True, metadata={"description": "A JSON object, as a text."})


class ToolCallSchema(StrictSchema):
    id = Text(required=True)
    type = Text(
        validate=validate.Equal("function", error="Only function calls are served."), metadata={"enum": ["function"]}
    )
    function = fields.Nested(CalledFunctionSchema, required=True)
    index = fields.Raw(allow_none=True, metadata={"description": "Ignored: streams number their calls."})

    @post_load
    def _plain(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"id": data["id"], "type": "function", "function": data["function"]}


def _has(name: str, **more: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}, **more}}}


_ASSISTANT = {"properties": {"role": {"const": "assistant"}}}
_TOOL = {"properties": {"role": {"const": "tool"}}}
_WORDLESS = [_has("tool_calls", minItems=1), _has("function_call"), _has("refusal")]


class MessageSchema(StrictSchema):
    """A message of any role; one that an answer has brought may be sent back as it is."""

    also: ClassVar = {
        "allOf": [
            {"if": _ASSISTANT, "then": {"anyOf": [_has("content"), *_WORDLESS]}, "else": _has("content")},
            {"if": _ASSISTANT, "else": {"not": {"anyOf": [_has("tool_calls"), *_WORDLESS[1:]]}}},
            {"if": _TOOL, "then": _has("tool_call_id")},
        ]
    }

    role = Text(required=True, validate=validate.OneOf(ROLES))
    content = Content()
    name = Text(allow_none=True)
    tool_calls = fields.List(fields.Nested(ToolCallSchema), allow_none=True)
    tool_call_id = Text(allow_none=True, metadata={"description": "Of a tool's message: the call that it answers."})
    function_call = fields.Nested(CalledFunctionSchema, allow_none=True, metadata={"deprecated": True})
    refusal = Text(allow_none=True)
    reasoning_content = Text(allow_none=True, metadata={"description": "For templates that show it."})
    annotations = fields.Raw(allow_none=True, metadata={"description": "Ignored."})
    audio = fields.Raw(
        allow_none=True,
        validate=validate.Equal(None, error="audio is not served."),
        metadata={"enum": [None], "description": "Not served."},
    )

    @post_load
    def _message(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        message = given(data)
        role = message["role"]
        for name, speaker in _SPEAKERS_ONLY.items():
            if name in message and role != speaker:
                raise ValidationError({name: [f"Only a message of the role {speaker} may have it."]})
        message.pop("annotations", None)
        content = message.setdefault("content", message.pop("refusal", None))
        if content is None and not (message.get("tool_calls") or "function_call" in message):
            raise ValidationError({"content": ["Must be a text."]})
        return _of_today(message)


def _of_today(message: dict[str, Any]) -> dict[str, Any]:
    """Function calls in the shape that came before tools become tool calls."""
    message.pop("refusal", None)
    if "function_call" in message:
        call = {"id": LEGACY_CALL_ID, "type": "function", "function": message.pop("function_call")}
        message.setdefault("tool_calls", [call])
    if message["role"] == "function":
        message |= {"role": "tool", "tool_call_id": LEGACY_CALL_ID}
    elif message["role"] == "tool" and "tool_call_id" not in message:
        raise ValidationError({"tool_call_id": ["Missing data for required field."]})
    return message
