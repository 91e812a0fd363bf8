from typing import Any

import pytest

from app.api.openai.closed_schema import closed

A = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED_A = {**A, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (A, CLOSED_A),
        ({"properties": {"properties": A}}, {"properties": {"properties": CLOSED_A}, "additionalProperties": False}),
        ({"$defs": {"A": A}, "$ref": "#/$defs/A"}, {"$defs": {"A": CLOSED_A}, "$ref": "#/$defs/A"}),
        ({"type": "array", "items": A}, {"type": "array", "items": CLOSED_A}),
        ({"anyOf": [A, {"type": "null"}]}, {"anyOf": [CLOSED_A, {"type": "null"}]}),
        ({"type": "object"}, {"type": "object"}),
        (None, None),
    ],
)
def test_objects_have_no_properties_but_those_they_name(schema: Any, expected: Any) -> None:
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {**A, "additionalProperties": True},
        {**A, "additionalProperties": {"type": "string"}},
        {**A, "patternProperties": {"^x": {}}},
        {"allOf": [A, {"properties": {"b": {}}}]},
        {**A, "anyOf": [{"properties": {"b": {}}}]},
        {"const": A, "enum": [A]},
    ],
)
def test_what_is_open_on_purpose_or_named_in_parts_stays_as_it_is(schema: Any) -> None:
    assert closed(schema) == schema
