"""`input` of `/v1/responses`: a text, or items of a conversation, loaded as the messages that chat templates expect."""

import json
from dataclasses import dataclass, field
from typing import Any

from marshmallow import ValidationError, fields, post_load, pre_load, validate

from app.api.schemas.fields import TextField, errors_under, object_with, one_of
from app.api.schemas.openai.messages import (
    ANY_RESULT,
    MAX_MESSAGES,
    TEXT_PARTS,
    ArgumentsField,
    Content,
    arguments_of,
    content_shapes,
    result_content,
)
from app.api.schemas.openai.response_tools import CUSTOM_INPUT, OfferedTools, called_name, load_tools
from app.api.schemas.request_schema import HistorySchema

Message = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_THOUGHTS = {"reasoning_text": "text", "summary_text": "text", "text": "text"}
_PASSED_OVER = (
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "ghost_snapshot",
    "tool_search_call",
    "tool_search_output",
    "configuration_update",
    "compaction",
    "compaction_summary",
    "context_compaction",
)
"""Items of tools that other servers have run: the messages after them contain what came of it. Items that only the
server can read that made them.
"""
_BUILT_IN = {  # the function that each becomes, and the member that has the arguments
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
"""Calls of tools that OpenAI knows and the client runs: the outputs are in items of their own."""
_OUTPUTS = ("function_call_output", "custom_tool_call_output", *(f"{kind}_output" for kind in _BUILT_IN))

REFERENCE = "item_reference"


@dataclass(slots=True)
class Conversation:
    """messages: `join_calls` has yet to give them the ids that items lack. One of the role `REFERENCE` stands for
    each item that is only named: its `id`, and the `path` of the field. tools: what items offer beside the request's
    own tools.
    """

    messages: list[Message] = field(default_factory=list)
    tools: OfferedTools = field(default_factory=OfferedTools)


class _MessageItemSchema(HistorySchema):
    role = TextField(required=True, validate=validate.OneOf(_ROLES))
    content = Content(TEXT_PARTS, required=True)


class _CallItemSchema(HistorySchema):
    call_id = TextField()
    name = TextField(required=True)
    namespace = TextField()
    arguments = ArgumentsField()


class _CustomCallItemSchema(HistorySchema):
    call_id = TextField()
    name = TextField(required=True)
    namespace = TextField()
    input = TextField(required=True)


class _CallOutputItemSchema(HistorySchema):
    call_id = TextField()
    output = Content(TEXT_PARTS, more=(ANY_RESULT,))

    @pre_load
    def _shown(self, item: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output = item.get("output")
        if output is None and item["type"] == "apply_patch_call_output":
            output = item.get("status")  # whether it could be applied; the output is optional
        return {**item, "output": result_content(output)}


class _BuiltInCallItemSchema(HistorySchema):
    call_id = TextField()

    def __init__(self, name: str, member: str) -> None:
        super().__init__()
        self._name, self._member = name, member

    @post_load(pass_original=True)
    def _function(self, item: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Make the call of a function of it."""
        with errors_under(self._member):
            arguments = _ARGUMENTS.deserialize(sent.get(self._member))
        return {**item, "name": self._name, "arguments": arguments}


class _ReasoningItemSchema(HistorySchema):
    summary = Content(_THOUGHTS)
    content = Content(_THOUGHTS)


class _ReferenceItemSchema(HistorySchema):
    id = TextField(required=True)


class _AdditionalToolsItemSchema(HistorySchema):
    tools = fields.Raw(required=True)


_ARGUMENTS = ArgumentsField()
_SCHEMAS: dict[str, HistorySchema] = {
    "message": _MessageItemSchema(),
    "function_call": _CallItemSchema(),
    "custom_tool_call": _CustomCallItemSchema(),
    **{kind: _BuiltInCallItemSchema(*call) for kind, call in _BUILT_IN.items()},
    **dict.fromkeys(_OUTPUTS, _CallOutputItemSchema()),
    "reasoning": _ReasoningItemSchema(),
    "additional_tools": _AdditionalToolsItemSchema(),
    REFERENCE: _ReferenceItemSchema(),
}


class ResponseInput(fields.Field[Conversation]):
    """Loaded as a conversation."""

    def __init__(self) -> None:
        text = {"type": "string"}
        content = {"anyOf": content_shapes(TEXT_PARTS, is_required=True)}
        message = object_with(type=one_of("message"), role=one_of(*_ROLES), content=content)
        message["required"] = ["role", "content"]  # the type may be left out
        call = object_with(type=one_of("function_call"), name=text)
        custom = object_with(type=one_of("custom_tool_call"), name=text, input=text)
        built_in = [
            object_with(type=one_of(kind), **{member: {"type": ["object", "string"]}})
            for kind, (_, member) in _BUILT_IN.items()
        ]
        output = object_with(type=one_of(*_OUTPUTS))
        output["properties"] |= {"output": {"anyOf": [*content["anyOf"], ANY_RESULT]}}
        for item in (call, custom, output, *built_in):
            item["properties"] |= {"call_id": text}  # some clients leave it out
        thoughts = object_with(type=one_of("reasoning"))
        reference = object_with(type=one_of(REFERENCE), id=text)
        others = object_with(type=one_of(*_PASSED_OVER))
        shapes = [message, call, custom, *built_in, output, thoughts, reference, others]
        items = {"type": "array", "maxItems": MAX_MESSAGES, "items": {"anyOf": shapes}}
        super().__init__(required=True, metadata={"anyOf": [text, items]})
        self._text = TextField()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Conversation:
        if isinstance(value, str):
            return Conversation([{"role": "user", "content": self._text.deserialize(value)}])
        if not isinstance(value, list) or len(value) > MAX_MESSAGES:
            raise ValidationError(f"Must be a text, or a list of at most {MAX_MESSAGES} items.")
        conversation = Conversation()
        for index, item in enumerate(value):
            with errors_under(index):
                add_item(conversation, item, f"input.{index}")
        conversation.messages = [message for message in conversation.messages if not _is_thought_only(message)]
        return conversation


def add_item(conversation: Conversation, item: Any, path: str) -> None:
    """Add an item's message, or what it has to the assistant's message before it. Raises ValidationError."""
    if not isinstance(item, dict):
        raise ValidationError("Must be an object.")
    kind = item.get("type") or "message"
    if kind in _PASSED_OVER:
        return
    schema = _SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise ValidationError({"type": [f"{str(kind)[:40]} is not supported; send {', '.join(_SCHEMAS)}."]})
    data, messages = schema.load(item), conversation.messages
    match kind:
        case "message":
            is_thought = data["role"] == "assistant" and messages and _is_thought_only(messages[-1])
            thought = messages.pop() if is_thought else {}
            messages.append({**thought, "role": data["role"], "content": data["content"]})
        case str() if kind in _OUTPUTS:
            messages.append({"role": "tool", "tool_call_id": data.get("call_id"), "content": data["output"]})
        case "reasoning":
            if thought := data.get("content") or data.get("summary"):
                messages.append({"role": "assistant", "content": None, "reasoning_content": thought})
        case "item_reference":
            messages.append({"role": REFERENCE, "id": data["id"], "path": path})
        case "additional_tools":
            with errors_under("tools"):
                conversation.tools += load_tools(data["tools"], f"{path}.tools")
        case _:
            _add_call(messages, data)


def _add_call(messages: list[Message], data: dict[str, Any]) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    is_custom = "input" in data
    arguments = json.dumps({CUSTOM_INPUT: data["input"]}, ensure_ascii=False) if is_custom else arguments_of(data)
    function = {"name": called_name(data["name"], data.get("namespace")), "arguments": arguments}
    call = {"id": data.get("call_id"), "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _is_thought_only(message: Message) -> bool:
    return message["role"] == "assistant" and message["content"] is None and "tool_calls" not in message
