"""`tools` of `/v1/responses`: functions, custom tools, which take a text, and namespaces of both.

A model calls functions only. A custom tool becomes a function with one text as its argument, and a tool of a namespace
gets a name of its own; a call is reported as the client offered it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.constraints import MAX_JSON_BYTES
from app.api.schemas.fields import JsonObject, TextField, errors_under, object_with, one_of
from app.api.schemas.openai.tools import MAX_TOOLS, FunctionSchema, ToolChoice, function_name
from app.api.schemas.request_schema import HistorySchema

CUSTOM_INPUT = "input"  # the argument of a custom tool
MAX_OFFERED = 4 * MAX_TOOLS  # with those in namespaces
DISPENSABLE = (
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "image_generation",
    "tool_search",
    "local_shell",
)
"""Types of tools that Codex always offers, and does without: they are ignored. Other built-in tools are rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool as a chat has it, and how the client has named it."""

    tool: dict[str, Any]
    name: str
    namespace: str | None = None
    is_custom: bool = False

    @property
    def called(self) -> str:
        """The name by which the model calls it."""
        return str(self.tool["function"]["name"])

    def reported(self) -> dict[str, Any]:
        """Return what the item of a call has instead of the model's name, as JSON; nothing for an ordinary function."""
        if self.namespace is None and not self.is_custom:
            return {}
        namespace = {} if self.namespace is None else {"namespace": self.namespace}
        return {"type": "custom_tool_call" if self.is_custom else "function_call", "name": self.name, **namespace}


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """ignored: the paths of what the model does not get."""

    tools: tuple[OfferedTool, ...] = ()
    ignored: tuple[str, ...] = ()

    def __add__(self, more: "OfferedTools") -> "OfferedTools":
        return OfferedTools(self.tools + more.tools, self.ignored + more.ignored)


def called_name(name: str, namespace: object) -> str:
    """Return the name by which the model calls a tool of a namespace; the history is rendered with it, too."""
    if not isinstance(namespace, str) or not namespace:
        return name
    joint = "" if namespace.endswith("_") or name.startswith("_") else "__"
    return f"{namespace}{joint}{name}"


class _CustomToolSchema(HistorySchema):
    name = function_name()
    description = TextField()
    format = JsonObject(max_bytes=MAX_JSON_BYTES)


class _NamespaceSchema(HistorySchema):
    name = function_name()
    description = TextField()
    tools = fields.List(fields.Raw(), required=True, validate=validate.Length(max=MAX_TOOLS))


_FUNCTION, _CUSTOM, _NAMESPACE = FunctionSchema(), _CustomToolSchema(), _NamespaceSchema()


class ResponseTools(fields.Field[OfferedTools]):
    """Loaded as the tools that the model may call. Those that are ignored are left out."""

    def __init__(self) -> None:
        name, text = {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"}, {"type": ["string", "null"]}
        object_ = {"type": ["object", "null"]}
        named = {"name": name, "description": text}
        members = {"function": named | {"parameters": object_}, "custom": named | {"format": object_}}
        callable_ = [_shape(kind, required=["name"], **inner) for kind, inner in members.items()]
        callable_ += [  # as in chats
            _shape(kind, required=[kind], **{kind: {"type": "object", "properties": inner, "required": ["name"]}})
            for kind, inner in members.items()
        ]
        tools = {"type": "array", "maxItems": MAX_TOOLS, "items": {"anyOf": callable_}}
        namespace = _shape("namespace", required=["name", "tools"], **named, tools=tools)
        shapes = [*callable_, namespace, object_with(type=one_of(*DISPENSABLE))]
        array = {"type": "array", "maxItems": MAX_TOOLS, "items": {"anyOf": shapes}}
        super().__init__(
            metadata={
                "anyOf": [array, {"type": "null"}],
                "description": "Functions and custom tools, which may have the shape of chats, and namespaces of "
                "both. Web search, image generation, tool search and the local shell are ignored: this server has "
                "none.",
            }
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> OfferedTools:
        return load_tools(value, "tools")


def load_tools(value: Any, path: str) -> OfferedTools:
    """Validate a list of tools. path: of the list in the request. Raises ValidationError."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise ValidationError(f"Must be a list of at most {MAX_TOOLS} tools.")
    loaded: list[OfferedTool | str] = []
    for index, tool in enumerate(value):
        with errors_under(index):
            loaded += _offered(tool, f"{path}.{index}")
    tools = tuple(one for one in loaded if isinstance(one, OfferedTool))
    if len(tools) > MAX_OFFERED:
        raise ValidationError(f"Must not have more than {MAX_OFFERED} tools in namespaces.")
    return OfferedTools(tools, tuple(one for one in loaded if isinstance(one, str)))


def chosen(choice: ToolChoice, offered: OfferedTools) -> ToolChoice:
    """Return the choice with the names by which the model calls the tools."""
    if choice.names is None:
        return choice
    called = {one.name: one.called for one in reversed(offered.tools)}
    called |= {one.called: one.called for one in offered.tools}
    names = tuple(called.get(name, name) for name in choice.names)
    return ToolChoice(mode=choice.mode, names=names, named=None if choice.named is None else names[0])


def _shape(kind: str, *, required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"type": one_of(kind), **properties}, "required": ["type", *required]}


def _offered(tool: Any, path: str, namespace: str | None = None) -> Iterator[OfferedTool | str]:
    """Yield the tools in a tool, and the paths of what is ignored."""
    match tool:
        case {"function": dict() as inner} if "name" not in tool and tool.get("type", "function") == "function":
            with errors_under("function"):  # as in chats
                yield from _offered({**inner, "type": "function"}, f"{path}.function", namespace)
        case {"type": "custom", "custom": dict() as inner} if "name" not in tool:
            with errors_under("custom"):
                yield from _offered({**inner, "type": "custom"}, f"{path}.custom", namespace)
        case {"type": "function"}:
            yield _function(_FUNCTION.load(tool), namespace)
        case {"type": "custom"}:
            custom = _CUSTOM.load(tool)
            yield _custom(custom, namespace)
            if custom.get("format", {}).get("syntax", "regex") != "regex":
                yield f"{path}.format"
        case {"type": "namespace"} if namespace is None:
            space = _NAMESPACE.load(tool)
            for index, inner in enumerate(space["tools"]):
                with errors_under("tools"), errors_under(index):
                    yield from _offered(inner, f"{path}.tools.{index}", space["name"])
        case {"type": str(kind)} if kind in DISPENSABLE and namespace is None:
            yield f"{path}.{kind}"
        case {"type": _}:
            raise ValidationError({"type": ["Only tools of the types function, custom and namespace are supported."]})
        case dict():
            raise ValidationError({"type": ["Missing data for required field."]})
        case _:
            raise ValidationError("Must be an object.")


def _function(function: dict[str, Any], namespace: str | None) -> OfferedTool:
    name = function["name"]
    tool = {"type": "function", "function": {**function, "name": called_name(name, namespace)}}
    return OfferedTool(tool=tool, name=name, namespace=namespace)


def _custom(custom: dict[str, Any], namespace: str | None) -> OfferedTool:
    text: dict[str, Any] = {"type": "string"}
    about = [custom.get("description", ""), f"Its argument {CUSTOM_INPUT} is a text."]
    match custom.get("format"):
        case {"type": "grammar", "syntax": "regex", "definition": str(definition)}:
            text["pattern"] = f"^(?:{definition})$"
            about.append(f"The text matches this regular expression: {definition}")
        case {"type": "grammar", "syntax": str(syntax), "definition": str(definition)}:
            about.append(f"The text follows this {syntax} grammar:\n{definition}")
        case {"type": "text"} | None:
            pass
        case _:
            raise ValidationError({"format": ["Must be text, or a grammar with its syntax and definition."]})
    function = {
        "name": called_name(custom["name"], namespace),
        "description": "\n".join(line for line in about if line),
        "parameters": {"type": "object", "properties": {CUSTOM_INPUT: text}, "required": [CUSTOM_INPUT]},
    }
    tool = {"type": "function", "function": function}
    return OfferedTool(tool=tool, name=custom["name"], namespace=namespace, is_custom=True)
