"""Whether a value can match two schemas of a `oneOf`. If not, `oneOf` is the same as `anyOf`, which a grammar holds."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.jobs.json_schema import resolved, types_of

MAX_STEPS = 50_000  # of all comparisons in one document: some 10 ms


@dataclass(frozen=True, slots=True)
class _Outline:
    """kinds: the types that a value may have. values: those that it may have, None: any of these types.
    tags: the outlines of the properties that an object always has.
    """

    kinds: frozenset[str]
    values: frozenset[str] | None = None
    tags: Mapping[str, "_Outline"] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return 1 + len(self.tags) + len(self.values or ())


class OneOfs:
    """Those of one document. What takes too many steps to find out counts as unknown."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._steps_left = MAX_STEPS
        self._outlines: dict[str, _Outline] = {}  # by reference

    def are_disjoint(self, schemas: Sequence[Any]) -> bool:
        """Return whether it is certain that no value matches two of the schemas."""
        outlines = [self._outline(schema) for schema in schemas]
        return all(self._differ(one, other) for one, other in itertools.combinations(outlines, 2))

    def _outline(self, schema: Any) -> _Outline:
        reference = str(schema.get("$ref", "")) if isinstance(schema, Mapping) else ""
        if reference in self._outlines:
            return self._outlines[reference]
        outline = self._outline_of(resolved(schema, self._document), with_tags=True)
        self._steps_left -= outline.size
        if reference:
            self._outlines[reference] = outline
        return outline

    def _outline_of(self, schema: Any, *, with_tags: bool) -> _Outline:
        if not isinstance(schema, Mapping):
            return _Outline(frozenset() if schema is False else types_of({}))
        kinds = types_of(schema)
        kinds = kinds | {"integer"} if "number" in kinds else kinds
        required = _always_present(schema) if with_tags and self._steps_left > 0 else {}
        tags = {
            name: self._outline_of(resolved(part, self._document), with_tags=False) for name, part in required.items()
        }
        return _Outline(kinds, _values(schema), tags)

    def _differ(self, one: _Outline, other: _Outline) -> bool:
        self._steps_left -= min(one.size, other.size)
        if self._steps_left < 0:
            return False
        if one.kinds.isdisjoint(other.kinds):
            return True
        if one.values is not None and other.values is not None:
            return one.values.isdisjoint(other.values)
        common = one.tags.keys() & other.tags.keys()
        return any(self._differ(one.tags[name], other.tags[name]) for name in common)


def _values(schema: Mapping[str, Any]) -> frozenset[str] | None:
    if "const" in schema:
        return frozenset({json.dumps(schema["const"], sort_keys=True)})
    if isinstance(schema.get("enum"), list):
        return frozenset(json.dumps(value, sort_keys=True) for value in schema["enum"])
    return None


def _always_present(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that are required of an object. A schema that allows other types as well has none."""
    properties, required = schema.get("properties"), schema.get("required")
    if types_of(schema) != {"object"} or not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: properties[name] for name in required if isinstance(name, str) and name in properties}
