"""JSON Schemas read as OpenAI's API reads them: an object has the properties it names, and no others.

JSON Schema allows other properties by default, and a small model that may invent properties does not stop. What is open
on purpose (`additionalProperties`, `patternProperties`) stays open.
"""

from typing import Any

_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items",)
_COMBINING = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "$ref", "dependentSchemas"})  # they may name more
_OPEN = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties"})


def closed(schema: Any) -> Any:
    """Return the schema with its objects closed."""
    if not isinstance(schema, dict):
        return schema
    names_properties = isinstance(schema.get("properties"), dict)
    combines = bool(_COMBINING & schema.keys())
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            result[key] = {name: closed(inner) for name, inner in value.items()}
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list) and not (names_properties and combines):
            result[key] = [closed(inner) for inner in value]
        else:
            result[key] = closed(value) if key in _SCHEMAS else value
    if names_properties and not combines and not _OPEN & schema.keys():
        result["additionalProperties"] = False
    return result
