"""`input` of `/v1/responses`: a text, or items of a conversation, loaded as the messages that chat templates expect."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.fields import HistorySchema, TextField, errors_under, object_with, one_of
from app.api.schemas.openai.messages import MAX_MESSAGES, Content, content_shapes

Message = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


class _MessageItemSchema(HistorySchema):
    role = TextField(required=True, validate=validate.OneOf(_ROLES))
    content = Content(_PARTS, required=True)


class _CallItemSchema(HistorySchema):
    call_id = TextField(required=True)
    name = TextField(required=True)
    arguments = TextField(required=True)


class _CallOutputItemSchema(HistorySchema):
    call_id = TextField(required=True)
    output = Content(_PARTS, required=True)


_SCHEMAS: dict[str, HistorySchema] = {
    "message": _MessageItemSchema(),
    "function_call": _CallItemSchema(),
    "function_call_output": _CallOutputItemSchema(),
}


class ResponseInput(fields.Field[list[Message]]):
    """Loaded as a list of messages."""

    def __init__(self) -> None:
        text = {"type": "string"}
        content = {"anyOf": content_shapes(_PARTS, is_required=True)}
        message = object_with(type=one_of("message"), role=one_of(*_ROLES), content=content)
        message["required"] = ["role", "content"]  # the type may be left out
        call = object_with(type=one_of("function_call"), call_id=text, name=text, arguments=text)
        output = object_with(type=one_of("function_call_output"), call_id=text, output=content)
        items = {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": {"anyOf": [message, call, output]}}
        super().__init__(required=True, metadata={"anyOf": [text, items]})
        self._text = TextField()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Message]:
        if isinstance(value, str):
            return [{"role": "user", "content": self._text.deserialize(value)}]
        if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
            raise ValidationError(f"Must be a text, or a list of 1 to {MAX_MESSAGES} items.")
        messages: list[Message] = []
        for index, item in enumerate(value):
            with errors_under(index):
                _add(messages, item)
        return messages


def _add(messages: list[Message], item: Any) -> None:
    """Add an item's message, or its call to the assistant's message before it."""
    if not isinstance(item, dict):
        raise ValidationError("Must be an object.")
    kind = item.get("type", "message")
    schema = _SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise ValidationError({"type": [f"{str(kind)[:40]} is not supported; send {', '.join(_SCHEMAS)}."]})
    data = schema.load(item)
    if kind == "message":
        messages.append({"role": data["role"], "content": data["content"]})
    elif kind == "function_call_output":
        messages.append({"role": "tool", "tool_call_id": data["call_id"], "content": data["output"]})
    else:
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        function = {"name": data["name"], "arguments": data["arguments"]}
        call = {"id": data["call_id"], "type": "function", "function": function}
        messages[-1].setdefault("tool_calls", []).append(call)
