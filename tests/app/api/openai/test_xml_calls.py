"""The values of calls in XML, by the schema of their function."""

import json
from typing import Any

import pytest

from app.api.openai.xml_calls import XmlCall


def arguments(body: str, parameters: Any) -> Any:
    call = XmlCall({"f": parameters}).follow(f"f>{body}</function>")
    assert call is not None
    return json.loads(call[0].arguments)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "integer"}, "12", 12),
        ({"type": "integer"}, "many", "many"),
        ({"type": ["string", "null"]}, "12", "12"),
        ({"type": ["string", "null"]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "12", "12"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "None", None),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "12", 12),
        ({"type": "boolean"}, "True", True),
        ({"type": "array"}, ' ["a"]\n', ["a"]),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "NaN", "NaN"),
        ({"$ref": "#/$defs/x"}, "12", 12),
        (None, "12", "12"),
        ({"type": 5, "anyOf": 3, "oneOf": [4]}, "12", 12),
    ],
)
def test_a_value_is_a_text_or_json_as_its_schema_wants(schema: Any, text: str, value: Any) -> None:
    body = f"<parameter=x>\n{text}\n</parameter>"
    assert arguments(body, {"properties": {"x": schema}}) == {"x": value}


@pytest.mark.parametrize("parameters", [{"properties": []}, {"properties": None}, [], {}])
def test_a_schema_that_is_none_makes_texts(parameters: Any) -> None:
    assert arguments("<parameter=x>1</parameter>", parameters) == {"x": "1"}


def test_a_value_ends_where_the_call_goes_on() -> None:
    body = "<parameter=x>a</parameter>b</function>\n<parameter=z>\n</parameter>\n<parameter=y>c</parameter>"
    known = {"properties": {"x": {"type": "string"}, "y": {"type": "string"}}}
    assert arguments(body, known) == {"x": "a</parameter>b</function>\n<parameter=z>", "y": "c"}


def test_a_value_without_its_last_tag_ends_at_the_next_one_that_is_known() -> None:
    known = {"properties": {"x": {"type": "string"}, "y": {"type": "string"}}}
    assert arguments("<parameter=x>\na\n<parameter=y>\nb\n</parameter>", known) == {"x": "a", "y": "b"}


def test_json_of_any_depth_stays_as_it_is_written() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    call = XmlCall({"f": {"properties": {"x": {"type": "array"}}}}).follow(
        f"f><parameter=x>{deep}</parameter></function>"
    )
    assert call is not None and call[0].arguments == f'{{"x": {deep}}}'
