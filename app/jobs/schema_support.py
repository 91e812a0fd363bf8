"""What a grammar can hold of a JSON Schema.

`supported` drops what constrains nothing, writes what it can in other keywords, and names the rest: constraints such as
`uniqueItems: true`, which look at more than the place where the next character stands. The API reports these (and with
`strict` rejects them), workers compile what is left.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.jobs import string_formats
from app.jobs.json_schema import IN_PLACE, Path, is_number, resolved, types_of, with_parts
from app.jobs.look_aheads import separated
from app.jobs.one_of import OneOfs

MAX_INTEGER = 2**63 - 1024  # the largest number of 64 bits that is a double too, as llguidance has its limits
MAX_FLOAT = 9e18  # llguidance knows no larger limit of a number
MAX_MULTIPLE = 10_000  # digits of `multipleOf` as a whole number; the time that 100,000 take is felt, 10**9 takes hours
MAX_NAMES = 2_000  # that become properties, in a whole document: each `propertyNames` could refer to the same long list
_HUGE = 1.79e308  # every number that a double can be is below

_NULLABLE = frozenset({"const", "enum", "default", "examples", "example"})
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NEVER_HELD = ("dependentSchemas", "dependentRequired", "dependencies", "$dynamicRef", "$recursiveRef")
_OF_OTHERS = ("then", "else", "minContains", "maxContains", "contentSchema", "$dynamicAnchor", "$recursiveAnchor")
"""They mean nothing by themselves."""
_REGEX_PART = re.compile(  # a set that is never closed takes the rest, or each of its characters would begin one anew
    r"\\. | \[ \^? \]? (?: \\. | [^\]\\] )* (?: \] | .* ) | \( \? (?: <? [=!] | > )", re.VERBOSE | re.DOTALL
)
_NO_REGULAR = re.compile(r"\(\?.* | \\[bBk1-9<>]", re.VERBOSE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Supported:
    """schema: what a grammar can hold. unenforced: dotted paths of the keywords that it cannot."""

    schema: Any
    unenforced: tuple[str, ...]


def supported(schema: Any) -> Supported:
    """Raises `RecursionError` where the schema is nested too deeply."""
    reading = _Reading(schema)
    kept = reading.read(schema, ())
    return Supported(kept, tuple(reading.unenforced))


class _Reading:
    """Of one schema."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._one_ofs = OneOfs(root)
        self._names_left = MAX_NAMES
        self.unenforced: list[str] = []

    def read(self, schema: Any, path: Path) -> Any:
        if not isinstance(schema, dict):
            return schema
        kept = {key: value for key, value in schema.items() if value is not None or key in _NULLABLE}
        for key in _COUNTS:
            if isinstance(kept.get(key), float) and kept[key].is_integer():
                kept[key] = int(kept[key])
        if kept.get("not") in ({}, True):
            return False
        self._names(kept, path)
        self._combinations(kept, path)
        self._numbers(kept, path)
        self._strings(kept, path)
        self._arrays(kept, path)
        self._objects(kept, path)
        return with_parts(kept, lambda part, more: self.read(part, path + more))

    def _drop(self, schema: dict[str, Any], key: str, path: Path, *, is_held: bool = False) -> None:
        """Remove a keyword. is_held: the schema constrains as much without it."""
        del schema[key]
        if not is_held:
            self.unenforced.append(".".join((*path, key)))

    def _combinations(self, schema: dict[str, Any], path: Path) -> None:
        for key in _OF_OTHERS:
            if key in schema and not (key in ("then", "else") and "if" in schema):
                del schema[key]
        if "if" in schema:
            branches = [schema.pop(key) for key in ("then", "else") if key in schema]
            self._drop(schema, "if", path, is_held=all(branch in ({}, True) for branch in branches))
        if "not" in schema:
            self._drop(schema, "not", path, is_held=schema["not"] in (False, {"not": {}}))
        for key in _NEVER_HELD:
            if key in schema:
                self._drop(schema, key, path, is_held=schema[key] == {})
        if isinstance(schema.get("oneOf"), list) and not self._one_ofs.are_disjoint(schema["oneOf"]):
            self.unenforced.append(".".join((*path, "oneOf")))  # it stays: workers read it as `anyOf`

    def _numbers(self, schema: dict[str, Any], path: Path) -> None:
        limits = string_formats.INTEGERS.get(str(schema.get("format")))
        if limits is not None and "integer" in types_of(schema):
            for key, limit, nearer in (("minimum", limits[0], max), ("maximum", limits[1], min)):
                schema[key] = nearer(limit, schema[key]) if is_number(schema.get(key)) else limit
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            if is_number(schema.get(key)):
                self._limit(schema, key, path)
        if is_number(schema.get("multipleOf")) and not _is_small_multiple(schema["multipleOf"]):
            self._drop(schema, "multipleOf", path)

    def _limit(self, schema: dict[str, Any], key: str, path: Path) -> None:
        """Move a limit that is too far away for a grammar nearer to 0."""
        value, sign = schema[key], -1 if key.endswith("inimum") else 1
        nearest = MAX_FLOAT if "number" in types_of(schema) else MAX_INTEGER
        if abs(value) <= nearest:
            return
        if value * sign < 0:  # numbers between it and 0 are excluded
            self._drop(schema, key, path)
        elif abs(value) >= _HUGE:
            self._drop(schema, key, path, is_held=True)
        else:
            schema[key] = nearest * sign

    def _strings(self, schema: dict[str, Any], path: Path) -> None:
        name = str(schema.get("format"))
        if "format" in schema and name not in string_formats.KNOWN:
            del schema["format"]
            if name in string_formats.PATTERNS and "string" in types_of(schema):
                schema.setdefault("pattern", string_formats.PATTERNS[name])
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = string_formats.REGULAR.get(schema["pattern"], schema["pattern"])
            self._pattern(schema, path)

    def _pattern(self, schema: dict[str, Any], path: Path) -> None:
        if is_regular(schema["pattern"]):
            return
        first, *others = separated(schema["pattern"])
        all_of = schema.get("allOf", [])
        if (
            types_of(schema) <= {"string", "null"}
            and isinstance(all_of, list)
            and all(map(is_regular, [first, *others]))
        ):
            schema["pattern"] = first
            schema["allOf"] = [*all_of, *({"pattern": other} for other in others)]
        else:
            self._drop(schema, "pattern", path)

    def _arrays(self, schema: dict[str, Any], path: Path) -> None:
        if "uniqueItems" in schema:
            holds_one = is_number(schema.get("maxItems")) and schema["maxItems"] <= 1
            self._drop(schema, "uniqueItems", path, is_held=schema["uniqueItems"] is False or holds_one)
        if "contains" in schema:
            self._drop(schema, "contains", path)
        self._unevaluated(schema, "unevaluatedItems", "items", path)

    def _objects(self, schema: dict[str, Any], path: Path) -> None:
        self._unevaluated(schema, "unevaluatedProperties", "additionalProperties", path)
        properties = schema.get("properties", {})
        if not isinstance(properties, dict) or not isinstance(schema.get("required", []), list):
            return
        names = set(map(str, schema.get("required", [])))
        required = len(set(properties) & names)
        is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        for key in ("minProperties", "maxProperties"):
            count = schema.get(key)
            if not is_number(count) or (is_closed and count <= 1):
                continue
            if required == len(properties):
                if key == "minProperties" and count > len(names) + 1 and not is_closed and "object" in types_of(schema):
                    self.unenforced.append(".".join((*path, key)))  # it stays: members are counted, same names too
                continue
            is_held = count <= required if key == "minProperties" else is_closed and count >= len(properties)
            self._drop(schema, key, path, is_held=is_held)

    def _unevaluated(self, schema: dict[str, Any], key: str, instead: str, path: Path) -> None:
        """Replace a keyword by the one that means the same where nothing else speaks of the same value."""
        if key not in schema:
            return
        value = schema[key]
        if value in (True, {}) or instead in schema:
            self._drop(schema, key, path, is_held=True)
        elif schema.keys() & IN_PLACE:
            self._drop(schema, key, path)
        else:
            schema[instead] = schema.pop(key)

    def _names(self, schema: dict[str, Any], path: Path) -> None:
        """Write the names that properties may have as `properties` or `patternProperties`, where that is the same."""
        if "propertyNames" not in schema:
            return
        names = resolved(schema["propertyNames"], self._root)
        rest = set(names) - {"type", "title", "description"} if isinstance(names, Mapping) else set()
        if names is True or (isinstance(names, Mapping) and not rest and "string" in types_of(names)):
            self._drop(schema, "propertyNames", path, is_held=True)
        elif "patternProperties" in schema or schema.keys() & IN_PLACE or not isinstance(names, Mapping):
            self._drop(schema, "propertyNames", path)
        elif rest <= {"enum", "const"}:
            allowed = names["enum"] if isinstance(names.get("enum"), list) else [names.get("const")]
            self._only(schema, [name for name in allowed if isinstance(name, str)], path)
        elif rest == {"pattern"} and not schema.get("properties") and is_regular(str(names["pattern"])):
            del schema["propertyNames"]
            schema["patternProperties"] = {str(names["pattern"]): schema.get("additionalProperties", True)}
            schema["additionalProperties"] = False
        else:
            self._drop(schema, "propertyNames", path)

    def _only(self, schema: dict[str, Any], names: list[str], path: Path) -> None:
        self._names_left -= len(names)
        self._drop(schema, "propertyNames", path, is_held=self._names_left >= 0)
        if self._names_left < 0:
            return
        given = schema.get("properties")
        properties = given if isinstance(given, dict) else {}
        others = schema.get("additionalProperties", True)
        allowed = set(names)
        named = {name: part for name, part in properties.items() if name in allowed}
        schema["properties"] = named | {name: others for name in names if name not in named}
        schema["additionalProperties"] = False


def is_regular(pattern: str) -> bool:
    """Return whether a pattern is free of what no automaton can do: looking around, and back references."""
    return not any(_NO_REGULAR.fullmatch(match[0]) for match in _REGEX_PART.finditer(pattern))


def _is_small_multiple(value: float) -> bool:
    """Return whether a grammar can count in steps of `value`: it has as many states as its digits say."""
    digits = Decimal(str(value)).normalize().as_tuple().digits
    return int("".join(map(str, digits))) <= MAX_MULTIPLE
