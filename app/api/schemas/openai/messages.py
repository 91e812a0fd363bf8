"""`messages` of a chat: OpenAI's shape, text only. They are loaded as the messages that chat templates expect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, pre_load, validate

from app.api.schemas.fields import (
    BoundedList,
    Flag,
    JsonObject,
    TextField,
    errors_under,
    is_unicode,
    object_with,
    one_of,
)
from app.api.schemas.openai.call_ids import join_calls
from app.api.schemas.openai.response_tools import CUSTOM_INPUT
from app.api.schemas.request_schema import HistorySchema

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
        more: JSON Schemas of other values, which `result_content` has made a text of before.
    """

    def __init__(self, parts: Mapping[str, str], more: Sequence[dict[str, Any]] = (), **kwargs: Any) -> None:
        shapes = content_shapes(parts, is_required=kwargs.get("required", False))
        super().__init__(metadata={"anyOf": [*shapes, *more]}, **kwargs)
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


ANY_RESULT: dict[str, Any] = {"type": ["object", "array", "number", "boolean", "null"]}
"""What a result may be beside what `Content` accepts: it is shown as JSON, null as an empty text."""


def result_content(value: Any) -> Any:
    """Return the result of a call as `Content` accepts it. JSON that is no text and no list of parts becomes a text."""
    if value is None:
        return ""
    is_content = isinstance(value, str) or (isinstance(value, list) and all(map(_is_part, value)))
    return value if is_content else json.dumps(value, ensure_ascii=False)


def _is_part(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, dict) and "type" in item)


class ArgumentsField(fields.Field[str]):
    """The arguments of a call: a JSON object as text. Some clients keep the object itself, or nothing for none."""

    def __init__(self) -> None:
        shapes = [{"type": "string"}, {"type": "object"}, {"type": "null"}]
        about = {"anyOf": shapes, "description": "A JSON object, best as text. Default: without members."}
        super().__init__(metadata=about)
        self._object, self._text = JsonObject(max_bytes=_MAX_ARGUMENTS_BYTES), TextField()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, dict):
            return json.dumps(self._object.deserialize(value), ensure_ascii=False)
        return self._text.deserialize(value) or ""


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

    id = TextField(metadata={"description": "Calls and results without ids belong together in order."})
    type = TextField(validate=validate.OneOf(("function", "custom")), metadata={"enum": ["function", "custom", None]})
    function = fields.Nested(CalledFunctionSchema)
    custom = fields.Nested(CalledCustomToolSchema)

    @post_load
    def _plain(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        kind = data.get("type", "function")
        if kind not in data:
            raise ValidationError({kind: ["Missing data for required field."]})
        return {"id": data.get("id"), "type": "function", "function": data[kind]}


def _has(name: str, **more: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}, **more}}}


_ASSISTANT = {"properties": {"role": {"const": "assistant"}}}
_RESULT = {"properties": {"role": {"enum": ["tool", "function"]}}}
_NO_RESULT = {"properties": {"content": {"anyOf": content_shapes(TEXT_PARTS, is_required=False)}}}
_CALLS = _has("tool_calls", minItems=1)


class MessageSchema(HistorySchema):
    """A message of any role. A message that a response contained, of any server, may be sent back unchanged."""

    also: ClassVar = {
        "allOf": [
            {"if": {"anyOf": [_ASSISTANT, _RESULT]}, "else": _has("content")},
            {"if": _ASSISTANT, "else": {"not": {"anyOf": [_has("function_call"), _has("refusal"), _CALLS]}}},
            {"if": _RESULT, "else": _NO_RESULT},
        ]
    }

    role = TextField(required=True, validate=validate.OneOf(ROLES))
    content = Content(TEXT_PARTS, more=(ANY_RESULT,))
    name = TextField()
    tool_name = TextField(
        metadata={"description": "Ollama's: the function whose result a message of the role tool is."}
    )
    tool_calls = BoundedList(fields.Nested(ToolCallSchema), validate=validate.Length(max=MAX_CALLS))
    tool_call_id = TextField(
        metadata={
            "description": "The call whose result a message of the role tool is. Default: the first one without a "
            "result, of the function that `name` or `tool_name` is."
        }
    )
    function_call = fields.Nested(CalledFunctionSchema, metadata={"deprecated": True})
    refusal = TextField()
    prefix = Flag(
        metadata={"description": "In the last message, of the assistant: the output continues it, as with Mistral."}
    )
    reasoning_content = TextField(metadata={"description": "For chat templates that show it."})
    reasoning = fields.Raw(metadata={"description": "Another name of reasoning_content, used by vLLM and OpenRouter."})
    audio = fields.Raw(metadata={"description": "Of an earlier response: its `transcript` is read, without `content`."})

    @pre_load
    def _shown(self, message: Any, **kwargs: Any) -> Any:
        """Make a text of the result of a call."""
        if not isinstance(message, dict) or message.get("role") not in ("tool", "function"):
            return message
        return {**message, "content": result_content(message.get("content"))}

    @post_load
    def _message(self, message: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Turn what came before tools into what replaced it: a refusal is content, a function call a tool call."""
        role, text = message["role"], message.get("refusal", _transcript(message.pop("audio", None)))
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
        if message.setdefault("content", text) is None and not has_calls:
            if role != "assistant":
                raise ValidationError({"content": ["Must be a text."]})
            message["content"] = ""  # it was cut off in its thoughts, or within a call
        if "function_call" in message:
            call = {"id": LEGACY_CALL_ID, "type": "function", "function": message.pop("function_call")}
            message.setdefault("tool_calls", [call])
        if role == "function":
            message |= {"role": "tool", "tool_call_id": LEGACY_CALL_ID}
        tool_name = message.pop("tool_name", None)
        if role == "tool" and tool_name is not None:
            message.setdefault("name", tool_name)
        return message


class Messages(BoundedList):
    """A conversation; calls and results without ids are joined."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fields.Nested(MessageSchema), validate=validate.Length(min=1, max=MAX_MESSAGES), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        messages = super()._deserialize(value, attr, data, **kwargs)
        join_calls(messages)
        return messages


def _transcript(audio: Any) -> str | None:
    """Return the words of an earlier response in audio. Other members of it, such as its id, are not read."""
    transcript = audio.get("transcript") if isinstance(audio, dict) else None
    return transcript if isinstance(transcript, str) and is_unicode(transcript) else None
