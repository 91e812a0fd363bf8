"""Gives an end to what a JSON Schema leaves without one.

A model may repeat itself within a text or a list until its context is full, and what is cut off there is no JSON. So a
free string gets a `maxLength`, an array a `maxItems`, an integer 64 bits, a fraction of a second nine digits. A value
of which the schema says nothing may nest a few levels deep. A length that the schema itself gives takes precedence.
Other numbers, texts with a pattern or a format, and lists and objects whose members the grammar cannot count, end as
`value_end` says.
"""

from collections.abc import Iterator
from typing import Any

from app.jobs.json_schema import IN_PLACE, Path, types_of, with_parts
from app.jobs.schema_support import MAX_INTEGER

CHARACTERS_PER_CONTEXT_TOKEN = 1.0  # of a free string: a quarter of the context, as a token of a text has about 4
ITEMS_PER_CONTEXT_TOKEN = 1 / 8  # of an array: a quarter of the context, where an item and its comma are two tokens
PROPERTIES_PER_CONTEXT_TOKEN = 1 / 32  # of an object: likewise, where a name, a value and their signs are eight tokens
FREE_LEVELS = 8  # of lists and objects in a value of which the schema says nothing
NAME_CHARACTERS = 128  # of a property that the schema does not name

_TIMES = frozenset({"date-time", "time"})
_FRACTION = r"^[^.]*(\.[0-9]{1,9}([zZ]|[+-][0-9]{2}:[0-9]{2}))?$"
_NAME = f"^(?s:.){{0,{NAME_CHARACTERS}}}$"
_SAYS_NOTHING = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "example",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
        "$schema",
    }
)
_DEFINITION = "llm-api-free-"
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")


def with_lengths(schema: dict[str, Any], context_tokens: int) -> dict[str, Any]:
    """Return the schema for a model whose prompt and output have `context_tokens` together."""
    lengths = _Lengths(context_tokens)
    bounded: dict[str, Any] = lengths.part(schema, ())
    if lengths.has_free_values:
        definitions = bounded.get("$defs")
        bounded["$defs"] = (definitions if isinstance(definitions, dict) else {}) | lengths.definitions()
    return bounded


def free_characters(context_tokens: int) -> int:
    """Return the most characters of a text without a length."""
    return max(1, int(context_tokens * CHARACTERS_PER_CONTEXT_TOKEN))


def most_items(schema: Any, context_tokens: int) -> int:
    """Return the most items of an array: what the schema speaks of, or at least the end of one without a length."""
    return max(_free_items(context_tokens), _most_written(schema))


def most_properties(schema: Any, context_tokens: int) -> int:
    """Return the same of an object."""
    return max(_free_properties(context_tokens), _most_written(schema))


def longest_name(schema: Any) -> int:
    """Return how many characters the name of a property may need to have."""
    names = (name for part in _nested(schema) if isinstance(part, dict) for name in part)
    return max(NAME_CHARACTERS, *map(len, names), 0)


def _free_items(context_tokens: int) -> int:
    return max(1, int(context_tokens * ITEMS_PER_CONTEXT_TOKEN))


def _free_properties(context_tokens: int) -> int:
    return max(1, int(context_tokens * PROPERTIES_PER_CONTEXT_TOKEN))


def _most_written(schema: Any) -> int:
    """Return the largest size of a list or an object in the schema, or that it gives to one."""
    given = (_count(part, key) for part in _nested(schema) if isinstance(part, dict) for key in _COUNTS)
    return max(0, *map(len, _nested(schema)), *given)


def _nested(schema: Any) -> Iterator[dict[str, Any] | list[Any]]:
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict | list):
            yield part
            todo.extend(part.values() if isinstance(part, dict) else part)


class _Lengths:
    def __init__(self, context_tokens: int) -> None:
        self._characters = free_characters(context_tokens)
        self._items = _free_items(context_tokens)
        self._properties = _free_properties(context_tokens)
        self.has_free_values = False

    def part(self, schema: Any, path: Path) -> Any:
        if path[:1] == ("allOf",):
            return with_parts(schema, self.part) if isinstance(schema, dict) else schema
        if schema is True or (isinstance(schema, dict) and schema.keys() <= _SAYS_NOTHING):
            return self._free_value()
        return self._bounded(schema) if isinstance(schema, dict) else schema

    def definitions(self) -> dict[str, Any]:
        """Return the schemas of free values: that of each level refers to the one of the next."""
        return {f"{_DEFINITION}{level}": self._free(level) for level in range(FREE_LEVELS + 1)}

    def _bounded(self, schema: dict[str, Any]) -> dict[str, Any]:
        kept = with_parts(schema, self.part)
        if "type" not in kept or kept.keys() & (IN_PLACE - {"anyOf", "oneOf"}):
            return kept
        types = types_of(kept)
        if "integer" in types and "number" not in types:
            _bound_integer(kept)
        if "string" in types:
            self._bound_string(kept)
        if "array" in types:
            self._bound_array(kept)
        if "object" in types:
            self._bound_object(kept)
        return kept

    def _free_value(self) -> dict[str, Any]:
        self.has_free_values = True
        return {"$ref": f"#/$defs/{_DEFINITION}{FREE_LEVELS}"}

    def _free(self, level: int) -> dict[str, Any]:
        scalars = [{"type": ["null", "boolean", "number"]}, {"type": "string", "maxLength": self._characters}]
        if level == 0:
            return {"anyOf": scalars}
        below = {"$ref": f"#/$defs/{_DEFINITION}{level - 1}"}
        items = {"type": "array", "items": below, "maxItems": self._items}
        properties = {"type": "object", "patternProperties": {_NAME: below}, "additionalProperties": False}
        return {"anyOf": [*scalars, items, properties | {"maxProperties": self._properties}]}

    def _bound_string(self, schema: dict[str, Any]) -> None:
        if schema.get("format") in _TIMES:
            schema["allOf"] = [{"type": schema["type"], "pattern": _FRACTION}]
        elif not schema.keys() & {"pattern", "format"}:  # these end as `value_end` says
            schema.setdefault("maxLength", max(self._characters, _count(schema, "minLength")))

    def _bound_array(self, schema: dict[str, Any]) -> None:
        schema.setdefault("maxItems", max(self._items, _count(schema, "minItems")))
        if isinstance(schema.get("items"), list):
            schema.setdefault("additionalItems", self._free_value())
        elif "items" not in schema:
            schema["items"] = self._free_value()

    def _bound_object(self, schema: dict[str, Any]) -> None:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if "additionalProperties" not in schema:
            schema["additionalProperties"] = self._free_value()
        others = schema["additionalProperties"]
        is_closed = others is False and "patternProperties" not in schema
        if is_closed or not isinstance(properties, dict) or not isinstance(required, list):
            return
        if not properties and "patternProperties" not in schema:
            schema |= {"patternProperties": {_NAME: others}, "additionalProperties": False}
        if set(properties) <= {name for name in required if isinstance(name, str)}:
            fewest = max(len(required), _count(schema, "minProperties"))
            schema.setdefault("maxProperties", max(self._properties, fewest))


def _bound_integer(schema: dict[str, Any]) -> None:
    if "minimum" not in schema and "exclusiveMinimum" not in schema:
        schema["minimum"] = -MAX_INTEGER
    if "maximum" not in schema and "exclusiveMaximum" not in schema:
        schema["maximum"] = MAX_INTEGER


def _count(schema: dict[str, Any], key: str) -> int:
    value = schema.get(key, 0)
    return value if isinstance(value, int) else 0
