"""Whether a value can match two schemas of a `oneOf`. If not, `oneOf` is the same as `anyOf`, which a grammar holds."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.jobs.json_schema import resolved, types_of

_MAX_SCHEMAS = 64  # each is compared with each


def are_disjoint(schemas: Sequence[Any], root: Any) -> bool:
    """Return whether it is certain that no value matches two of them."""
    if len(schemas) > _MAX_SCHEMAS:
        return False
    resolved_schemas = [resolved(schema, root) for schema in schemas]
    return all(_differ(one, other, root) for one, other in itertools.combinations(resolved_schemas, 2))


def _differ(one: Any, other: Any, root: Any) -> bool:
    if one is False or other is False:
        return True
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    if _kinds(one).isdisjoint(_kinds(other)):
        return True
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return values.isdisjoint(others)
    return any(
        _values_differ(one["properties"].get(name), other["properties"].get(name), root)
        for name in _always_present(one) & _always_present(other)
    )


def _values_differ(one: Any, other: Any, root: Any) -> bool:
    """Whether two schemas of a property have no value in common: the tag of a tagged union."""
    one, other = resolved(one, root), resolved(other, root)
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return values.isdisjoint(others)
    return _kinds(one).isdisjoint(_kinds(other))


def _kinds(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a value may have; a schema that refers to others may allow fewer."""
    kinds = types_of(schema)
    return kinds | {"integer"} if "number" in kinds else kinds


def _values(schema: Mapping[str, Any]) -> frozenset[str] | None:
    if "const" in schema:
        return frozenset({json.dumps(schema["const"], sort_keys=True)})
    if isinstance(schema.get("enum"), list):
        return frozenset(json.dumps(value, sort_keys=True) for value in schema["enum"])
    return None


def _always_present(schema: Mapping[str, Any]) -> set[str]:
    """Names that are required of an object. A schema that allows other types as well has none."""
    properties, required = schema.get("properties"), schema.get("required")
    if types_of(schema) != {"object"} or not isinstance(properties, dict) or not isinstance(required, list):
        return set()
    return {name for name in required if isinstance(name, str) and name in properties}
