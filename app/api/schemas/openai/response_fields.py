"""Parts of `/v1/responses` that have another shape than in a chat: `text`, `tools`, `tool_choice`, `reasoning`."""

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.json_fields import Text
from app.api.schemas.openai.response_format import ResponseFormat
from app.api.schemas.openai.tools import FunctionSchema, ToolChoice, ToolChoiceField
from app.api.schemas.strict import StrictSchema

_FORMAT_OF_A_CHAT, _CHOICE_OF_A_CHAT = ResponseFormat(), ToolChoiceField()


class TextFormat(fields.Field[dict[str, Any]]):
    """Loaded, it is the JSON Schema that the answer follows; None for text."""

    def __init__(self) -> None:
        named = {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["json_schema"]},
                "name": {"type": "string"},
                "schema": {"type": "object"},
            },
            "required": ["type", "name", "schema"],
        }
        plain = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["text", "json_object"]}},
            "required": ["type"],
        }
        super().__init__(allow_none=True, metadata={"anyOf": [plain, named, {"type": "null"}]})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any] | None:  # type: ignore[override]
        schema: dict[str, Any] | None
        if isinstance(value, dict) and value.get("type") == "json_schema":
            named = {name: inner for name, inner in value.items() if name != "type"}
            if named.get("schema") is None:
                raise ValidationError({"schema": ["Missing data for required field."]})
            try:
                schema = _FORMAT_OF_A_CHAT.deserialize({"type": "json_schema", "json_schema": named})
            except ValidationError as error:
                inner = error.messages["json_schema"] if isinstance(error.messages, dict) else error.messages
                raise ValidationError(inner) from None
        else:
            schema = _FORMAT_OF_A_CHAT.deserialize(value)
        return schema


class TextConfigSchema(StrictSchema):
    format = TextFormat()
    verbosity = fields.Raw(allow_none=True, metadata={"description": "Ignored. Say it in a message."})


class ReasoningSchema(StrictSchema):
    effort = Text(allow_none=True, metadata={"description": "For chat templates that read it (`reasoning_effort`)."})
    summary = fields.Raw(allow_none=True, metadata={"description": "Ignored: nothing is summarised."})
    generate_summary = fields.Raw(allow_none=True, metadata={"description": "Ignored: nothing is summarised."})


class ResponseToolSchema(FunctionSchema):
    """Loaded, it has the shape of a chat's tool."""

    type = Text(
        required=True,
        validate=validate.Equal("function", error="Only tools of the type function are served."),
        metadata={"enum": ["function"]},
    )

    @post_load
    def _function(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        kept = {name: value for name, value in data.items() if name not in ("type", "strict") and value is not None}
        return {"type": "function", "function": kept}


class ResponseToolChoice(fields.Field[ToolChoice]):
    """As in a chat, but functions stand there by their bare names."""

    def __init__(self) -> None:
        modes = {"type": "string", "enum": ["none", "auto", "required"]}
        named = {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["function"]}, "name": {"type": "string"}},
            "required": ["type", "name"],
        }
        among = {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["allowed_tools"]},
                "mode": {"type": "string", "enum": ["auto", "required"]},
                "tools": {"type": "array", "items": {**named, "required": ["name"]}},
            },
            "required": ["type", "mode", "tools"],
        }
        super().__init__(allow_none=True, metadata={"anyOf": [modes, named, among, {"type": "null"}]})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ToolChoice:
        match value:
            case {"type": "function", "name": str(name)}:
                value = {"type": "function", "function": {"name": name}}
            case {"type": "allowed_tools", "mode": mode, "tools": [*tools]}:
                named = [{"function": {"name": tool.get("name") if isinstance(tool, dict) else None}} for tool in tools]
                value = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
            case dict():
                value = None
        choice: ToolChoice = _CHOICE_OF_A_CHAT._deserialize(value, attr, data)
        return choice
