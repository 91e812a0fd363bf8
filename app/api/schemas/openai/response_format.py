"""`response_format`: text, any JSON object, or JSON that follows a schema."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.json_fields import Flag, JsonObject, Text
from app.api.schemas.sampling import MAX_GRAMMAR_BYTES
from app.api.schemas.strict import StrictSchema

ANY_OBJECT: dict[str, Any] = {"type": "object"}


class NamedSchemaSchema(StrictSchema):
    name = Text(required=True, validate=validate.Length(min=1, max=64))
    description = Text(allow_none=True)
    schema = JsonObject(max_bytes=MAX_GRAMMAR_BYTES, allow_none=True)
    strict = Flag(allow_none=True, metadata={"description": "Ignored: the answer always follows the schema."})


_NAMED = NamedSchemaSchema()


class ResponseFormat(fields.Field[dict[str, Any]]):
    """Loaded, it is the JSON Schema that the answer follows; None for text."""

    def __init__(self, **kwargs: Any) -> None:
        def shape(kind: str, **more: Any) -> dict[str, Any]:
            properties = {"type": {"type": "string", "enum": [kind]}, **more}
            return {"type": "object", "properties": properties, "required": ["type", *more]}

        named = {
            "type": "object",
            "properties": {"name": {"type": "string"}, "schema": {"type": "object"}},
            "required": ["name"],
        }
        shapes = [shape("text"), shape("json_object"), shape("json_schema", json_schema=named), {"type": "null"}]
        super().__init__(allow_none=True, metadata={"anyOf": shapes}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any] | None:  # type: ignore[override]
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "text":
            return None
        if kind == "json_object":
            return ANY_OBJECT
        if kind != "json_schema":
            raise ValidationError({"type": ["Must be one of: text, json_object, json_schema."]})
        if not isinstance(value.get("json_schema"), dict):
            raise ValidationError({"json_schema": ["Must be an object with name and schema."]})
        try:
            named = _NAMED.load(value["json_schema"])
        except ValidationError as error:
            raise ValidationError({"json_schema": error.messages}) from None
        return named.get("schema") or ANY_OBJECT
