"""`tools`, `tool_choice`, `functions`, `function_call`: what the model may call, and what it must."""

import re
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.job_options import given
from app.api.schemas.json_fields import Flag, JsonObject, Text
from app.api.schemas.sampling import MAX_GRAMMAR_BYTES
from app.api.schemas.strict import StrictSchema

MAX_TOOLS = 128  # as OpenAI's API has it
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_MODES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """mode: none, auto or required. names: the tools that may be called, None = all. named: one must be, this one."""

    mode: str = "auto"
    names: tuple[str, ...] | None = None
    named: str | None = None


class FunctionSchema(StrictSchema):
    name = Text(
        required=True,
        validate=validate.Regexp(_NAME, error="Must be 1 to 64 letters, digits, underscores, dots and dashes."),
    )
    description = Text(allow_none=True)
    parameters = JsonObject(
        max_bytes=MAX_GRAMMAR_BYTES, allow_none=True, metadata={"description": "JSON Schema of the arguments."}
    )
    strict = Flag(
        allow_none=True,
        metadata={"description": "Ignored: a call that is required or named always follows its schema."},
    )

    @post_load
    def _function(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in given(data).items() if name != "strict"}


class ToolSchema(StrictSchema):
    type = Text(
        required=True,
        validate=validate.Equal("function", error="Only tools of the type function are served."),
        metadata={"enum": ["function"]},
    )
    function = fields.Nested(FunctionSchema, required=True)


class ToolChoiceField(fields.Field[ToolChoice]):
    """`none`, `auto`, `required`, one function, or a choice among allowed ones."""

    def __init__(self, **kwargs: Any) -> None:
        function = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        named = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["function"]}, "function": function},
            "required": ["type", "function"],
        }
        allowed = {
            "type": "object",
            "properties": {
                "mode": {"type": "string", "enum": ["auto", "required"]},
                "tools": {"type": "array", "items": {**named, "required": ["function"]}},
            },
            "required": ["mode", "tools"],
        }
        among = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["allowed_tools"]}, "allowed_tools": allowed},
            "required": ["type", "allowed_tools"],
        }
        shapes = [{"type": "string", "enum": list(_MODES)}, named, among, {"type": "null"}]
        super().__init__(allow_none=True, metadata={"anyOf": shapes}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ToolChoice:
        if isinstance(value, str) and value in _MODES:
            return ToolChoice(mode=value)
        match value:
            case {"type": "function", "function": {"name": str(name)}}:
                return ToolChoice(mode="required", names=(name,), named=name)
            case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": [*tools]}}:
                return ToolChoice(mode=mode, names=tuple(_allowed(tools)))
        raise ValidationError("Must be none, auto, required, a function by its name, or allowed_tools.")


def _allowed(tools: list[Any]) -> list[str]:
    for tool in tools:
        match tool:
            case {"function": {"name": str()}}:
                continue
        raise ValidationError("Each of allowed_tools must be a function by its name.")
    return [tool["function"]["name"] for tool in tools]


class FunctionCallField(fields.Field[ToolChoice]):
    """`function_call` of the time before tools: none, auto, or `{"name": ...}`."""

    def __init__(self, **kwargs: Any) -> None:
        named = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        shapes = [{"type": "string", "enum": ["none", "auto"]}, named, {"type": "null"}]
        super().__init__(allow_none=True, metadata={"anyOf": shapes, "deprecated": True}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ToolChoice:
        match value:
            case "none" | "auto":
                return ToolChoice(mode=value)
            case {"name": str(name)}:
                return ToolChoice(mode="required", names=(name,), named=name)
        raise ValidationError("Must be none, auto, or a function by its name.")


class ToolsSchema(Schema):
    """The part of a chat request that is about tools."""

    tools = fields.List(fields.Nested(ToolSchema), allow_none=True, validate=validate.Length(max=MAX_TOOLS))
    tool_choice = ToolChoiceField()
    parallel_tool_calls = Flag(
        allow_none=True, metadata={"description": "false: at most one call is answered with. Default: true."}
    )
    functions = fields.List(
        fields.Nested(FunctionSchema),
        allow_none=True,
        validate=validate.Length(max=MAX_TOOLS),
        metadata={"deprecated": True},
    )
    function_call = FunctionCallField()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What may be called in one chat. parallel: several at once. legacy: answer with `function_call`."""

    tools: tuple[dict[str, Any], ...] = ()
    choice: ToolChoice = ToolChoice(mode="none")
    parallel: bool = True
    legacy: bool = False

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Tools":
        """From the loaded fields of `ToolsSchema`. Raises ValidationError."""
        legacy = "functions" in data
        if legacy and "tools" in data:
            raise ValidationError({"functions": ["tools and functions exclude each other; send tools."]})
        name = "function_call" if legacy else "tool_choice"
        wrong = "tool_choice" if legacy else "function_call"
        if wrong in data:
            raise ValidationError({wrong: [f"It goes with {'tools' if legacy else 'functions'}; send {name}."]})
        functions = data.get("functions") or [tool["function"] for tool in data.get("tools") or []]
        choice: ToolChoice = data.get(name) or ToolChoice(mode="auto" if functions else "none")
        chosen = _chosen(functions, choice, name)
        if choice.mode == "none" or not chosen:
            return cls()
        tools = tuple({"type": "function", "function": function} for function in chosen)
        parallel = data.get("parallel_tool_calls", True) and not legacy
        return cls(tools=tools, choice=choice, parallel=parallel, legacy=legacy)


def _chosen(functions: list[dict[str, Any]], choice: ToolChoice, field: str) -> list[dict[str, Any]]:
    known = {function["name"]: function for function in functions}
    if choice.mode == "required" and not functions:
        raise ValidationError({field: ["There is nothing to call; send tools."]})
    unknown = [name for name in choice.names or () if name not in known]
    if unknown:
        raise ValidationError({field: [f"There is no function {unknown[0][:64]!r} among the tools."]})
    return [function for name, function in known.items() if choice.names is None or name in choice.names]
