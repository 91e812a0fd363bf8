"""The structure of a JSON Schema: where the schemas below it are, and what a reference in it points to."""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

Path = tuple[str, ...]
Visit = Callable[[Any, Path], Any]

_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_SINGLE = frozenset({"items", "additionalProperties", "additionalItems"})
IN_PLACE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "const", "enum"})
"""Keywords that say more about the same value."""


def with_parts(schema: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
    """Return a copy of a schema in which each schema directly below it is replaced by what `visit` returns for it.

    visit: gets the schema, and its path from here.
    """
    return {key: _part(key, value, visit) for key, value in schema.items()}


def _part(key: str, value: Any, visit: Visit) -> Any:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: visit(part, (key, name)) for name, part in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [visit(part, (key, str(index))) for index, part in enumerate(value)]
    return visit(value, (key,)) if key in _SINGLE else value


def resolved(schema: Any, root: Any) -> Any:
    """Return what a schema that is nothing but a reference into `root` points to; any other schema as it is."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    target = root
    for name in reference.removeprefix("#/").split("/"):
        target = target.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a number of JSON, which true is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the types that `type` allows, all of them where it is missing."""
    types = schema.get("type")
    if types is None:
        return frozenset({"null", "boolean", "number", "integer", "string", "array", "object"})
    names = types if isinstance(types, list) else [types]
    return frozenset(name for name in names if isinstance(name, str))
