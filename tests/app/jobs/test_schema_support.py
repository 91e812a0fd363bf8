"""Which constraints a grammar holds, by the schemas that real packages write, compiled with the workers' library."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.jobs.schema_support import is_regular, supported
from tests.package_schemas import HELD, NOT_HELD, matcher_of, matches
from tests.waiting import scaled

KEYWORDS = [
    *("type", "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties"),
    *("items", "prefixItems", "uniqueItems", "contains", "maxItems", "unevaluatedItems", "unevaluatedProperties"),
    *("format", "pattern", "minLength", "multipleOf", "minimum", "exclusiveMaximum", "const", "enum"),
    *("anyOf", "oneOf", "allOf", "not", "if", "then", "$ref", "$defs", "dependentRequired"),
]
_SCALARS = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False)
    | some.sampled_from(["string", "object", "number", "int32", "uuid4", "^a", "(", "#/$defs/a", "a", ""])
)


def _containers(values: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
    return some.lists(values, max_size=3) | some.dictionaries(some.sampled_from([*KEYWORDS, "a"]), values, max_size=5)


@pytest.mark.parametrize("name", HELD)
def test_what_packages_write_is_held_but_for_lengths(name: str) -> None:
    schema, good, _ = HELD[name]
    result = supported(schema)
    assert result.unenforced == ()
    assert [value for value in good if not matches(result.schema, value)] == []


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_no_grammar_holds_is_named_and_the_rest_compiles(name: str) -> None:
    schema, paths = NOT_HELD[name]
    result = supported(schema)
    assert sorted(result.unenforced) == paths
    matcher_of(result.schema)


def test_a_schema_is_not_changed() -> None:
    schema = {"type": "array", "items": {"type": "string", "format": "path", "not": {"const": ""}}}
    before = repr(schema)
    assert supported(schema).schema == {"type": "array", "items": {"type": "string"}}
    assert repr(schema) == before


@pytest.mark.parametrize("schema", [{"not": {}}, {"type": "string", "not": True}])
def test_a_schema_that_no_value_matches_is_false(schema: dict[str, Any]) -> None:
    assert supported(schema).schema is False


def test_names_of_properties_are_no_keywords() -> None:
    schema = {"type": "object", "properties": {"not": {"type": "string"}, "if": {}, "uniqueItems": {}}}
    assert supported(schema).unenforced == ()
    assert supported(schema).schema == schema


def test_values_are_no_schemas() -> None:
    schema = {"enum": [{"not": {"a": 1}}], "default": {"uniqueItems": True}, "examples": [{"if": 1}]}
    assert supported(schema).schema == schema


@pytest.mark.parametrize(
    ("pattern", "is_one"),
    [("^a$", True), (r"[\b(?=]", True), (r"\\b", True), (r"\(?=a", True), ("a(?!b)", False), (r"(?<=a)b", False)],
)
def test_only_what_looks_around_or_back_is_not_regular(pattern: str, is_one: bool) -> None:
    assert is_regular(pattern) is is_one


@pytest.mark.parametrize("part", ["[", "[^", "(?", "\\", "[\\]"])
def test_a_pattern_of_any_shape_is_read_at_once(part: str) -> None:
    started = time.process_time()
    is_regular(part * (60_000 // len(part)))
    assert time.process_time() - started < scaled(0.5)


def test_a_long_list_of_names_that_many_objects_refer_to_is_written_out_a_few_times() -> None:
    names = {"enum": [f"name{number}" for number in range(900)]}
    maps = {f"m{number}": {"type": "object", "propertyNames": {"$ref": "#/$defs/E"}} for number in range(500)}
    started = time.process_time()
    result = supported({"type": "object", "properties": maps, "$defs": {"E": names}})
    assert len(result.unenforced) == 498
    assert time.process_time() - started < scaled(0.5)


@given(some.recursive(_SCALARS, _containers, max_leaves=20))
def test_no_schema_however_wrong_raises(schema: Any) -> None:
    supported(schema)
