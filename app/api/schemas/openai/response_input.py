"""`input` of `/v1/responses`: a text, or items of a conversation, as the messages that chat templates expect."""

from typing import Any

from marshmallow import ValidationError, fields

from app.api.schemas.json_fields import Text
from app.api.schemas.openai.chat import MAX_MESSAGES

Message = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_IGNORED = frozenset({"id", "status", "type", "phase"})  # what an answer's items have beside what they say
_ITEMS = "message, function_call, function_call_output"
_text = Text()


class ResponseInput(fields.Field[list[Message]]):
    """Loaded, it is a list of messages."""

    def __init__(self, **kwargs: Any) -> None:
        parts = [
            {
                "type": "object",
                "properties": {"type": {"type": "string", "enum": [kind]}, name: {"type": "string"}},
                "required": ["type", name],
            }
            for kind, name in _TEXTS.items()
        ]
        content = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": parts}}]}
        message = _shape("message", ["role", "content"], role={"type": "string", "enum": list(_ROLES)}, content=content)
        message["required"] = ["role", "content"]  # its type goes without saying
        text = {"type": "string"}
        call = _shape("function_call", ["call_id", "name", "arguments"], call_id=text, name=text, arguments=text)
        output = _shape("function_call_output", ["call_id", "output"], call_id=text, output=content)
        items = {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": {"anyOf": [message, call, output]}}
        super().__init__(metadata={"anyOf": [text, items]}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Message]:
        if isinstance(value, str):
            return [{"role": "user", "content": _text.deserialize(value)}]
        if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
            raise ValidationError(f"Must be a text, or a list of 1 to {MAX_MESSAGES} items.")
        messages: list[Message] = []
        for index, item in enumerate(value):
            try:
                _add(messages, item)
            except ValidationError as error:
                raise ValidationError({str(index): error.messages}) from None
        return messages


def _shape(kind: str, required: list[str], **properties: Any) -> dict[str, Any]:
    properties = {"type": {"type": "string", "enum": [kind]}, **properties}
    return {"type": "object", "properties": properties, "required": ["type", *required]}


def _add(messages: list[Message], item: Any) -> None:
    """A call belongs to the assistant's message before it."""
    if not isinstance(item, dict):
        raise ValidationError("Must be an object.")
    kind = item.get("type", "message")
    if kind == "message":
        messages.append(_message(item))
    elif kind == "function_call":
        found = _texts(item, "call_id", "name", "arguments")
        function = {"name": found["name"], "arguments": found["arguments"]}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(
            {"id": found["call_id"], "type": "function", "function": function}
        )
    elif kind == "function_call_output":
        _refuse_others(item, "call_id", "output")
        call_id = _texts({"call_id": item.get("call_id")}, "call_id")["call_id"]
        messages.append({"role": "tool", "tool_call_id": call_id, "content": _content(item, "output")})
    else:
        raise ValidationError({"type": [f"{str(kind)[:40]} is not served; send {_ITEMS}."]})


def _message(item: dict[str, Any]) -> Message:
    _refuse_others(item, "role", "content")
    if item.get("role") not in _ROLES:
        raise ValidationError({"role": [f"Must be one of: {', '.join(_ROLES)}."]})
    return {"role": item["role"], "content": _content(item, "content")}


def _content(item: dict[str, Any], name: str) -> str:
    """A text, or parts of it, which become one text with a line each."""
    value = item.get(name)
    try:
        if isinstance(value, list):
            return "\n".join(_part(index, part) for index, part in enumerate(value))
        return _text.deserialize(value) or ""
    except ValidationError as error:
        raise ValidationError({name: error.messages}) from None


def _part(index: int, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _TEXTS:
        shown = kind if isinstance(kind, str) else "an unknown part"
        raise ValidationError({str(index): [f"{shown[:40]} is not served: this model reads text only."]})
    try:
        return _text.deserialize(part.get(_TEXTS[kind])) or ""
    except ValidationError as error:
        raise ValidationError({str(index): {_TEXTS[kind]: error.messages}}) from None


def _texts(item: dict[str, Any], *names: str) -> dict[str, str]:
    _refuse_others(item, *names)
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = _text.deserialize(item.get(name)) or ""
        except ValidationError as error:
            raise ValidationError({name: error.messages}) from None
    return found


def _refuse_others(item: dict[str, Any], *names: str) -> None:
    for name, value in item.items():
        if name not in names and name not in _IGNORED and value is not None:
            raise ValidationError({name[:64]: ["Unknown parameter."]})
