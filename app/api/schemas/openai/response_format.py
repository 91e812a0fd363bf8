"""`response_format` of a chat, `text.format` of a response: text, any JSON object, or JSON that follows a schema."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.constraints import MAX_JSON_BYTES
from app.api.schemas.fields import Flag, JsonObject, TextField, errors_under, object_with, one_of
from app.api.schemas.openai.strictness import STRICT, reject_unenforced
from app.api.schemas.request_schema import RequestSchema

ANY_OBJECT: dict[str, Any] = {"type": "object"}


class _SchemaSchema(RequestSchema):
    name = TextField(validate=validate.Length(min=1, max=64))
    description = TextField()
    schema = JsonObject(max_bytes=MAX_JSON_BYTES)
    strict = Flag(metadata={"description": STRICT})


class NamedSchemaSchema(_SchemaSchema):
    name = TextField(required=True, validate=validate.Length(min=1, max=64))


class _FormatSchema(_SchemaSchema):
    """Every place where clients put the schema, whatever the type is."""

    type = fields.Raw()
    json_schema = fields.Nested(NamedSchemaSchema)


_NAMED, _FORMAT = NamedSchemaSchema(), _FormatSchema()


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
        if kind not in ("text", "json_object", "json_schema"):
            raise ValidationError({"type": ["Must be one of: text, json_object, json_schema."]})
        given = {name: member for name, member in value.items() if member is not None}
        if kind == "json_schema":
            self._require_schema(given)
        loaded = _FORMAT.load(given)
        if kind == "text":
            _reject_schema(loaded)
            return None
        return _schema_of(loaded)

    def _require_schema(self, given: dict[str, Any]) -> None:
        if self._is_flat and "json_schema" not in given:
            if "schema" not in given:
                raise ValidationError({"schema": ["Missing data for required field."]})
            _NAMED.load({name: member for name, member in given.items() if name != "type"})
        elif "schema" not in given and not isinstance(given.get("json_schema"), dict):
            raise ValidationError({"json_schema": ["Must be an object with name and schema."]})


def _reject_schema(loaded: dict[str, Any]) -> None:
    for name in ("schema", "json_schema"):
        if name in loaded:
            raise ValidationError({name: ["A text follows no schema; send the type json_schema."]})


def _schema_of(loaded: dict[str, Any]) -> dict[str, Any]:
    """Return the schema beside the type, or the one in `json_schema`. Raises ValidationError."""
    nested: dict[str, Any] | None = loaded.get("json_schema")
    if nested is None:
        reject_unenforced(loaded, "schema")
        return loaded.get("schema") or ANY_OBJECT
    if "schema" in loaded:
        raise ValidationError({"schema": ["schema and json_schema exclude each other; send one of them."]})
    with errors_under("json_schema"):
        reject_unenforced(nested, "schema")
    return nested.get("schema") or ANY_OBJECT
