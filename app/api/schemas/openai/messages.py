"""`messages` of a chat: OpenAI's shape, text only. They are loaded as the messages that chat templates expect."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.fields import (
    BoundedList,
    Flag,
    HistorySchema,
    JsonObject,
    TextField,
    errors_under,
    is_unicode,
    object_with,
    one_of,
)
from app.api.schemas.openai.response_tools import CUSTOM_INPUT

MAX_MESSAGES = 4096
MAX_CALLS = 1024  # of one message
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
LEGACY_CALL_ID = "function0"  # `function_call` has none; nine letters, as Mistral's template requires
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_NO_ARGUMENTS = "{}"
_ASSISTANT_ONLY = ("tool_calls", "function_call", "refusal")
_PASSED_OVER = frozenset(
    {
        *("thinking", "redacted_thinking", "reasoning", "reasoning_content"),
        *("tool_use", "tool_call", "function_call", "server_tool_use", "non_standard"),
    }
)
"""Types of parts that other servers' messages carry: thoughts, which no chat template reads, and calls, which
`tool_calls` has too.
"""
_MAX_ARGUMENTS_BYTES = 2**30  # the limit of the whole body is lower


class Content(fields.Field[str]):
    """A text, or a list of texts and text parts, which become the lines of one text. Thoughts and calls are ignored.

    Args:
        parts: maps the types of parts to the name of the member that has the text.
    """

    def __init__(self, parts: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(metadata={"anyOf": content_shapes(parts, is_required=kwargs.get("required", False))}, **kwargs)
        self._parts = parts
        self._text = TextField()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, list):
            texts = (self._part(index, part) for index, part in enumerate(value))
            return "\n".join(text for text in texts if text is not None)
        if not isinstance(value, str):
            raise ValidationError("Must be a string or a list of text parts.")
        return self._text.deserialize(value) or ""

    def _part(self, index: int, part: Any) -> str | None:
        if isinstance(part, str):
            with errors_under(index):
                return self._text.deserialize(part)
        kind = part.get("type") if isinstance(part, dict) else None
        name = self._parts.get(kind) if isinstance(kind, str) else None
        if isinstance(kind, str) and kind in _PASSED_OVER:
            return None
        with errors_under(index):
            if name is None:
                shown = kind if isinstance(kind, str) else "an unknown part"
                raise ValidationError(f"{shown[:40]} is not supported: this model reads text only.")
            with errors_under(name):
                return self._text.deserialize(part.get(name)) or ""


def content_shapes(parts: Mapping[str, str], *, is_required: bool) -> list[dict[str, Any]]:
    """Return the JSON Schemas of the values that `Content` accepts."""
    shapes = [object_with(type=one_of(kind), **{name: {"type": "string"}}) for kind, name in parts.items()]
    shapes.append({"type": "string"})
    shapes.append(object_with(type=one_of(*sorted(_PASSED_OVER))))
    null = [] if is_required else [{"type": "null"}]
    return [{"type": "string"}, {"type": "array", "items": {"anyOf": shapes}}, *null]


class ArgumentsField(TextField):
    """The arguments of a call: a JSON object as text. Some clients keep the object itself, or nothing for none."""

    def __init__(self) -> None:
        shapes = [{"type": "string"}, {"type": "object"}, {"type": "null"}]
        about = {"anyOf": shapes, "description": "A JSON object, best as text. Default: without members."}
        super().__init__(metadata=about)
        self._object = JsonObject(max_bytes=_MAX_ARGUMENTS_BYTES)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, dict):
            return json.dumps(self._object.deserialize(value), ensure_ascii=False)
        return super()._deserialize(value, attr, data, **kwargs)


def arguments_of(call: Mapping[str, Any]) -> str:
    """Return the arguments of a loaded call as a JSON object."""
    return call.get("arguments", "").strip() or _NO_ARGUMENTS


class CalledFunctionSchema(HistorySchema):
    name = TextField(required=True)
    arguments = ArgumentsField()

    @post_load
    def _with_arguments(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {**data, "arguments": arguments_of(data)}


class CalledCustomToolSchema(HistorySchema):
    """Loaded as a call of a function with one argument, as the tools of a response are."""

    name = TextField(required=True)
    input = TextField(required=True)

    @post_load
    def _function(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"name": data["name"], "arguments": json.dumps({CUSTOM_INPUT: data["input"]}, ensure_ascii=False)}


class ToolCallSchema(HistorySchema):
    also: ClassVar = {
        "if": {"required": ["type"], "properties": {"type": {"const": "custom"}}},
        "then": {"required": ["custom"], "properties": {"custom": {"not": {"type": "null"}}}},
        "else": {"required": ["function"], "properties": {"function": {"not": {"type": "null"}}}},
    }

    id = TextField(required=True)
    type = TextField(validate=validate.OneOf(("function", "custom")), metadata={"enum": ["function", "custom", None]})
    function = fields.Nested(CalledFunctionSchema)
    custom = fields.Nested(CalledCustomToolSchema)

    @post_load
    def _plain(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        kind = data.get("type", "function")
        if kind not in data:
            raise ValidationError({kind: ["Missing data for required field."]})
        return {"id": data["id"], "type": "function", "function": data[kind]}


def _has(name: str, **more: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}, **more}}}


_ASSISTANT = {"properties": {"role": {"const": "assistant"}}}
_TOOL = {"properties": {"role": {"const": "tool"}}}
_CALLS = _has("tool_calls", minItems=1)


class MessageSchema(HistorySchema):
    """A message of any role. A message that a response contained, of any server, may be sent back unchanged."""

    also: ClassVar = {
        "allOf": [
            {"if": _ASSISTANT, "else": _has("content")},
            {"if": _ASSISTANT, "else": {"not": {"anyOf": [_has("function_call"), _has("refusal"), _CALLS]}}},
            {"if": _TOOL, "then": _has("tool_call_id")},
        ]
    }

    role = TextField(required=True, validate=validate.OneOf(ROLES))
    content = Content(TEXT_PARTS)
    name = TextField()
    tool_calls = BoundedList(fields.Nested(ToolCallSchema), validate=validate.Length(max=MAX_CALLS))
    tool_call_id = TextField(metadata={"description": "The call whose result a message of the role tool is."})
    function_call = fields.Nested(CalledFunctionSchema, metadata={"deprecated": True})
    refusal = TextField()
    prefix = Flag(
        metadata={"description": "In the last message, of the assistant: the output continues it, as with Mistral."}
    )
    reasoning_content = TextField(metadata={"description": "For chat templates that show it."})
    reasoning = fields.Raw(metadata={"description": "Another name of reasoning_content, used by vLLM and OpenRouter."})
    audio = fields.Raw(
        validate=validate.Equal(None, error="audio is not supported."),
        metadata={"enum": [None], "description": "Not supported."},
    )

    @post_load
    def _message(self, message: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Turn what came before tools into what replaced it: a refusal is content, a function call a tool call."""
        role, refusal = message["role"], message.get("refusal")
        for name in _ASSISTANT_ONLY:
            if name in message and role != "assistant":
                if message[name] != []:
                    raise ValidationError({name: ["Only a message of the role assistant may have it."]})
                del message[name]
        message.pop("refusal", None)
        if not message.get("prefix") or role != "assistant":
            message.pop("prefix", None)
        reasoning = message.pop("reasoning", None)
        if isinstance(reasoning, str) and is_unicode(reasoning):
            message.setdefault("reasoning_content", reasoning)
        has_calls = bool(message.get("tool_calls")) or "function_call" in message
        if message.setdefault("content", refusal) is None and not has_calls:
            if role != "assistant":
                raise ValidationError({"content": ["Must be a text."]})
            message["content"] = ""  # it was cut off in its thoughts, or within a call
        if "function_call" in message:
            call = {"id": LEGACY_CALL_ID, "type": "function", "function": message.pop("function_call")}
            message.setdefault("tool_calls", [call])
        if role == "function":
            message |= {"role": "tool", "tool_call_id": LEGACY_CALL_ID}
        elif role == "tool" and "tool_call_id" not in message:
            raise ValidationError({"tool_call_id": ["Missing data for required field."]})
        return message
