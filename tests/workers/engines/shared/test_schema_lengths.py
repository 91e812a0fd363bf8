"""Every text, list and integer of a schema has an end, and what packages write is accepted and refused as it says."""

from typing import Any

import pytest

from app.jobs.schema_support import supported
from tests.package_schemas import HELD, matches
from workers.engines.shared.schema_lengths import (
    FREE_LEVELS,
    NAME_CHARACTERS,
    longest_name,
    most_items,
    most_properties,
    with_lengths,
)

CONTEXT_TOKENS = 2048  # 2,048 characters of a text, 256 items of an array


def compiled(schema: dict[str, Any]) -> dict[str, Any]:
    return with_lengths(supported(schema).schema, CONTEXT_TOKENS)


@pytest.mark.parametrize("name", HELD)
def test_a_schema_that_a_package_writes_accepts_and_refuses_what_the_package_does(name: str) -> None:
    schema, good, bad = HELD[name]
    bounded = compiled(schema)
    assert [value for value in good if not matches(bounded, value)] == []
    assert [value for value in bad if matches(bounded, value)] == []


@pytest.mark.parametrize(
    ("schema", "longest", "too_long"),
    [
        ({"type": "string"}, "a" * 2048, "a" * 2049),
        ({"type": "array", "items": {"type": "integer"}}, [1] * 256, [1] * 257),
        ({"type": "array"}, [None] * 256, [None] * 257),
        ({"type": "integer"}, 2**63 - 1024, 2**64),
        ({"type": "integer", "minimum": 0}, 2**63 - 1024, 2**64),
        ({"type": ["integer", "null"]}, -(2**62), -(2**64)),
        ({"type": "object"}, {"a" * 128: "b" * 2048}, {"a" * 129: 1}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a" * 128: "b"}, {"a": "b" * 2049}),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"a": "b" * 2048}, {"a": "b" * 2049}),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "boolean"}}, "additionalProperties": False},
            {f"x{number}": True for number in range(64)},
            {f"x{number}": True for number in range(65)},
        ),
        ({}, ["a" * 2048], ["a" * 2049]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a" * 2048, "a" * 2049),
        ({"$defs": {"A": {"type": "string"}}, "$ref": "#/$defs/A"}, "a" * 2048, "a" * 2049),
    ],
)
def test_what_has_no_length_gets_one(schema: dict[str, Any], longest: Any, too_long: Any) -> None:
    assert matches(compiled(schema), longest)
    assert not matches(compiled(schema), too_long)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "maxLength": 5000}, "a" * 5000),
        ({"type": "string", "minLength": 3000}, "a" * 3000),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 300}, [1] * 300),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 300}, [1] * 300),
        ({"const": "a" * 3000}, "a" * 3000),
        ({"type": "string", "enum": ["a" * 3000]}, "a" * 3000),
        ({"allOf": [{"type": "string"}, {"maxLength": 5000}]}, "a" * 5000),
        ({"type": "integer", "maximum": 5}, -(10**18)),
    ],
)
def test_a_length_of_the_schemas_own_takes_precedence(schema: dict[str, Any], value: Any) -> None:
    assert matches(compiled(schema), value)


def test_a_value_of_which_nothing_is_said_nests_a_few_levels() -> None:
    value: Any = 1
    for _ in range(FREE_LEVELS):
        value = [value]
    assert matches(compiled({}), value)
    assert not matches(compiled({}), [value])


def test_definitions_of_the_schemas_own_stay() -> None:
    schema = {"type": "array", "prefixItems": [{}, {"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "integer"}}}
    assert matches(compiled(schema), [None, 5])
    assert not matches(compiled(schema), [None, "5"])


@pytest.mark.parametrize(
    ("schema", "items", "properties"),
    [
        ({"type": "object"}, 256, 64),
        ({"properties": {f"p{number}": {} for number in range(200)}}, 256, 200),
        ({"items": {"anyOf": [{"type": "array", "maxItems": 999}, True, None]}}, 999, 999),
        ({"minProperties": 500, "maxItems": True}, 500, 500),
        ({"enum": [[1] * 400]}, 400, 400),
    ],
)
def test_a_list_or_an_object_may_have_as_many_members_as_its_schema_speaks_of(
    schema: Any, items: int, properties: int
) -> None:
    assert (most_items(schema, CONTEXT_TOKENS), most_properties(schema, CONTEXT_TOKENS)) == (items, properties)


def test_a_name_may_be_as_long_as_the_longest_in_the_schema() -> None:
    assert longest_name({"type": "object"}) == NAME_CHARACTERS
    assert longest_name({"items": {"anyOf": [{"properties": {"a" * 200: {}}}]}}) == 200
