"""What the output follows, under names of vLLM: one of several texts, and any kind of constraint in an object."""

import json
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.fields import Flag, IgnoredField, JsonObject, TextField, no_nul
from app.api.schemas.request_schema import RequestSchema

MAX_JSON_BYTES = 65_536  # grammars and schemas are compiled once per request, in the worker
MAX_TEXTS, MAX_TEXT_LENGTH = 512, 1024  # of a choice, which becomes a grammar
_ANY_OBJECT = {"type": "object"}
_KINDS = ("json", "regex", "choice", "grammar", "json_object")


def _given(kind: str) -> dict[str, Any]:
    return {"const": True} if kind == "json_object" else {"not": {"type": "null"}}


class JsonSchemaField(JsonObject):
    """A JSON Schema. SGLang's clients, and some of vLLM's, send it as a text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_bytes=MAX_JSON_BYTES, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValidationError("Must be a JSON Schema, an object.") from None
        return super()._deserialize(value, attr, data, **kwargs)


class ChoiceField(fields.List[str]):
    """Texts of which the output is one."""

    def __init__(self, **kwargs: Any) -> None:
        text = TextField(validate=(validate.Length(1, MAX_TEXT_LENGTH), no_nul))
        super().__init__(text, validate=validate.Length(1, MAX_TEXTS), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        return [text for text in super()._deserialize(value, attr, data, **kwargs) if text is not None]


def source_field(**kwargs: Any) -> TextField:
    """Return the field of a text that the worker compiles."""
    return TextField(validate=(validate.Length(max=MAX_JSON_BYTES), no_nul), **kwargs)


class StructuredOutputsSchema(RequestSchema):
    """Loaded as the one sampling parameter that it means."""

    also: ClassVar = {
        "oneOf": [
            {
                "required": [kind],
                "properties": {kind: {"const": True} if kind == "json_object" else {"not": {"type": "null"}}},
            }
            for kind in _KINDS
        ]
    }

    json = JsonSchemaField()
    regex = source_field()
    choice = ChoiceField()
    grammar = source_field(metadata={"description": "In GBNF or Lark."})
    json_object = Flag()
    disable_fallback = IgnoredField("there is no other way.")
    disable_any_whitespace = IgnoredField("JSON has one style here.")
    disable_additional_properties = IgnoredField("the schema decides.")

    @post_load
    def _parameter(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        given = [kind for kind in _KINDS if kind in data and data[kind] is not False]
        if len(given) != 1:
            raise ValidationError(f"Must have exactly one of: {', '.join(_KINDS)}.")
        (kind,) = given
        value = data[kind]
        match kind:
            case "json":
                return {"json_schema": value}
            case "json_object":
                return {"json_schema": dict(_ANY_OBJECT)}
            case "choice":
                return {"grammar": grammar_of(value)}
        return {kind: value}


GUIDED_FIELDS: dict[str, fields.Field[Any]] = {
    "guided_choice": ChoiceField(metadata={"description": "Texts of which the output is one (vLLM)."}),
    "structured_outputs": fields.Nested(
        StructuredOutputsSchema, metadata={"description": "One of grammar, json_schema, regex and choice (vLLM)."}
    ),
}
"""Beside the sampling parameters, whose other names are `guided_json`, `guided_regex` and `guided_grammar`."""


def grammar_of(texts: list[str]) -> str:
    """Return a GBNF grammar of these texts."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "root ::= " + " | ".join(f'"{text}"' for text in escaped)


def as_parameters(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with what `GUIDED_FIELDS` mean instead of these."""
    plain: dict[str, Any] = {name: value for name, value in params.items() if name not in GUIDED_FIELDS}
    if "guided_choice" in params:
        plain["grammar"] = grammar_of(params["guided_choice"])
    plain |= params.get("structured_outputs", {})
    return plain
