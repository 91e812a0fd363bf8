"""`tools`, `tool_choice`, `functions`, `function_call`: what the model may call, and what it must call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate

from app.api.schemas.constraints import MAX_JSON_BYTES
from app.api.schemas.fields import BoundedList, Flag, JsonObject, TextField, object_with, one_of
from app.api.schemas.openai.strictness import STRICT, reject_unenforced
from app.api.schemas.request_schema import HistorySchema

MAX_TOOLS = 128  # as in OpenAI's API
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_MODES = {"none": "none", "auto": "auto", "required": "required", "any": "required"}
"""By the texts of a choice; the last one is Mistral's and Anthropic's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """mode: none, auto or required. names: the tools that may be called, None = all. named: the one that must be."""

    mode: str = "auto"
    names: tuple[str, ...] | None = None
    named: str | None = None


def function_name() -> TextField:
    """Return the field for the name of a function, which the client chooses."""
    error = "Must be 1 to 64 letters, digits, underscores, dots and dashes."
    return TextField(required=True, validate=validate.Regexp(_NAME, error=error))


class FunctionSchema(HistorySchema):
    name = function_name()
    description = TextField()
    parameters = JsonObject(max_bytes=MAX_JSON_BYTES, metadata={"description": "JSON Schema of the arguments."})
    strict = Flag(metadata={"description": STRICT})

    @post_load
    def _function(self, function: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        kind = function.get("parameters", {}).get("type", "object")
        if kind != "object" and not (isinstance(kind, list) and "object" in kind):
            raise ValidationError({"parameters": {"type": ["Must be object: the arguments of a call have names."]}})
        reject_unenforced(function, "parameters")
        return function


class _FunctionType(TextField):
    def __init__(self) -> None:
        super().__init__(
            required=True,
            validate=validate.Equal("function", error="Only tools of the type function are supported."),
            metadata={"enum": ["function"]},
        )


class ToolSchema(HistorySchema):
    """A tool of a chat. Some clients leave out the type, or put the function beside it, as in `/v1/responses`."""

    also: ClassVar = {"required": ["function"]}

    type = _FunctionType()
    function = fields.Nested(FunctionSchema, required=True)

    @pre_load
    def _nested(self, data: Any, **kwargs: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if "function" not in data and "name" in data and data.get("type") == "function":
            return {"type": "function", "function": data}
        return {"type": "function", **data} if "function" in data else data


class ToolChoiceField(fields.Field[ToolChoice]):
    """`none`, `auto`, `required`, one function, or a choice among allowed ones.

    Args:
        is_flat: the members of a choice are beside its type, as in `/v1/responses`; else in an object below it.
    """

    def __init__(self, *, is_flat: bool = False) -> None:
        name = {"name": {"type": "string"}}
        self._kinds = ("function", "custom") if is_flat else ("function",)
        function: dict[str, Any] = name if is_flat else {"function": object_with(**name)}
        named = object_with(type=one_of(*self._kinds), **function)
        mode = object_with(type=one_of(*_MODES))
        allowed = {
            "mode": one_of("auto", "required"),
            "tools": {"type": "array", "items": named | {"required": list(function)}},
        }
        among = object_with(
            type=one_of("allowed_tools"), **(allowed if is_flat else {"allowed_tools": object_with(**allowed)})
        )
        super().__init__(metadata={"anyOf": [one_of(*_MODES), mode, named, among, {"type": "null"}]})
        self._is_flat = is_flat

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ToolChoice:
        if isinstance(value, str) and value in _MODES:
            return ToolChoice(mode=_MODES[value])
        if isinstance(value, dict):
            match value.get("type"), self._inside(value, str(value.get("type"))):
                case str(mode), _ if mode in _MODES:
                    return ToolChoice(mode=_MODES[mode])
                case "function" | "custom", {"name": str(name)} if value["type"] in self._kinds:
                    return ToolChoice(mode="required", names=(name,), named=name)
                case "allowed_tools", {"mode": "auto" | "required" as mode, "tools": [*tools]}:
                    return ToolChoice(mode=mode, names=tuple(self._name(tool) for tool in tools))
        raise ValidationError("Must be none, auto, required, a function by its name, or allowed_tools.")

    def _name(self, tool: Any) -> str:
        match self._inside(tool, "function"):
            case {"name": str(name)}:
                return name
        raise ValidationError("Each of allowed_tools must be a function by its name.")

    def _inside(self, value: Any, name: str) -> Any:
        """Return what has the members of a choice. Clients of one endpoint send the other one's shape, too."""
        if not isinstance(value, dict):
            return None
        return value.get(name, value) if not self._is_flat or "name" not in value else value


class FunctionCallField(fields.Field[ToolChoice]):
    """`function_call`, which `tool_choice` has replaced: none, auto, or `{"name": ...}`."""

    def __init__(self) -> None:
        shapes = [one_of("none", "auto"), object_with(name={"type": "string"}), {"type": "null"}]
        super().__init__(metadata={"anyOf": shapes, "deprecated": True})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ToolChoice:
        match value:
            case "none" | "auto":
                return ToolChoice(mode=value)
            case {"name": str(name)}:
                return ToolChoice(mode="required", names=(name,), named=name)
        raise ValidationError("Must be none, auto, or a function by its name.")


class ToolsSchema(Schema):
    """The fields of a chat request that are about tools."""

    tools = BoundedList(fields.Nested(ToolSchema), validate=validate.Length(max=MAX_TOOLS))
    tool_choice = ToolChoiceField()
    functions = BoundedList(
        fields.Nested(FunctionSchema), validate=validate.Length(max=MAX_TOOLS), metadata={"deprecated": True}
    )
    function_call = FunctionCallField()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The tools of one chat.

    parallel: several calls in one output. legacy: respond with `function_call`. strict: names of the strict ones.
    """

    tools: tuple[dict[str, Any], ...] = ()
    choice: ToolChoice = ToolChoice(mode="none")
    parallel: bool = True
    legacy: bool = False
    strict: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Tools":
        """Make it of the loaded fields of `ToolsSchema`. Raises ValidationError."""
        legacy_functions, tools = data.get("functions", []), data.get("tools", [])
        if legacy_functions and tools:
            raise ValidationError({"functions": ["tools and functions exclude each other; send tools."]})
        functions = legacy_functions or [tool["function"] for tool in tools]
        legacy = bool(legacy_functions) or (not tools and "tool_choice" not in data)
        name = "function_call" if legacy else "tool_choice"
        wrong = "tool_choice" if legacy else "function_call"
        if wrong in data and (functions or data[wrong].mode == "required"):
            raise ValidationError({wrong: [f"It belongs to {'tools' if legacy else 'functions'}; send {name}."]})
        choice: ToolChoice = data.get(name) or ToolChoice(mode="auto" if functions else "none")
        chosen = _chosen(functions, choice, name)
        if choice.mode == "none" or not chosen:
            return cls()
        strict = frozenset(function["name"] for function in chosen if function.get("strict"))
        tools = tuple({"type": "function", "function": _shown(function)} for function in chosen)
        parallel = data.get("parallel_tool_calls", True) and not legacy
        return cls(tools=tools, choice=choice, parallel=parallel, legacy=legacy, strict=strict)


def _shown(function: dict[str, Any]) -> dict[str, Any]:
    """Return what the model sees of a function."""
    return {name: value for name, value in function.items() if name != "strict"}


def _chosen(functions: list[dict[str, Any]], choice: ToolChoice, field: str) -> list[dict[str, Any]]:
    known = {function["name"]: function for function in functions}
    if choice.mode == "required" and not functions:
        raise ValidationError({field: ["There are no tools to call; send tools."]})
    unknown = [name for name in choice.names or () if name not in known]
    if unknown:
        raise ValidationError({field: [f"There is no function {unknown[0][:64]!r} among the tools."]})
    return [function for name, function in known.items() if choice.names is None or name in choice.names]
