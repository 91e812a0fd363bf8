"""`response_format` of a chat, `text.format` of a response: text, any JSON object, or JSON that follows a schema."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.fields import Flag, JsonObject, RequestSchema, TextField, errors_under, object_with, one_of
from app.api.schemas.sampling import MAX_JSON_BYTES

ANY_OBJECT: dict[str, Any] = {"type": "object"}


class NamedSchemaSchema(RequestSchema):
    name = TextField(required=True, validate=validate.Length(min=1, max=64))
    description = TextField()
    schema = JsonObject(max_bytes=MAX_JSON_BYTES)
    strict = Flag(metadata={"description": "Ignored: the output always follows the schema."})


_NAMED = NamedSchemaSchema()


class ResponseFormat(fields.Field[dict[str, Any]]):
    """Loaded as the JSON Schema that the output follows; None for text.

    Args:
        is_flat: the schema and its name are beside the type, and the schema is required, as in `/v1/responses`.
    """

    def __init__(self, *, is_flat: bool = False) -> None:
        name, schema = {"type": "string"}, {"type": "object"}
        kind = one_of("json_schema")
        if is_flat:
            named = object_with(type=kind, name=name, schema=schema)
        else:
            inner = object_with(name=name, schema=schema) | {"required": ["name"]}
            named = object_with(type=kind, json_schema=inner)
        super().__init__(metadata={"anyOf": [object_with(type=one_of("text", "json_object")), named, {"type": "null"}]})
        self._is_flat = is_flat

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any] | None:  # type: ignore[override]
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "text":
            return None
        if kind == "json_object":
            return ANY_OBJECT
        if kind != "json_schema":
            raise ValidationError({"type": ["Must be one of: text, json_object, json_schema."]})
        if self._is_flat:
            if value.get("schema") is None:
                raise ValidationError({"schema": ["Missing data for required field."]})
            named = _NAMED.load({name: inner for name, inner in value.items() if name != "type"})
        else:
            if not isinstance(value.get("json_schema"), dict):
                raise ValidationError({"json_schema": ["Must be an object with name and schema."]})
            with errors_under("json_schema"):
                named = _NAMED.load(value["json_schema"])
        return named.get("schema") or ANY_OBJECT
