"""Schemas of calls, compiled by the library with which the workers follow them."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from app.api.openai.tool_schema import MAX_CALLS, schema_of_arguments, schema_of_calls, schema_of_calls_or

_TOKENIZER = LLTokenizer("byte")
TREE = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#"}}, "leaf": {"$ref": "#/$defs/Leaf"}},
    "$defs": {"Leaf": {"type": "string"}},
}


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **({"parameters": parameters} if parameters else {})}}


def permits(schema: dict[str, Any], value: Any) -> bool:
    matcher = LLMatcher(_TOKENIZER, json.dumps({"grammars": [{"json_schema": schema}]}), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    text = list(json.dumps(value).encode())
    return bool(matcher.validate_tokens(text) == len(text) and matcher.consume_tokens(text) and matcher.is_accepting())


TOOLS = [tool("grow", TREE), tool("now")]


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ([{"name": "now", "arguments": {}}], True),
        ([{"name": "now", "arguments": {"any": 1}}, {"name": "now", "arguments": {}}], True),
        ([{"name": "grow", "arguments": {"children": [{"leaf": "a"}], "leaf": "b"}}], True),
        ([{"name": "grow", "arguments": {"leaf": 1}}], False),
        ([{"name": "grow", "arguments": {"children": [{"leaf": 1}]}}], False),
        ([{"name": "other", "arguments": {}}], False),
        ([], False),
        ({"name": "now", "arguments": {}}, False),
    ],
)
def test_calls_name_a_function_and_follow_its_own_schema(value: Any, is_allowed: bool) -> None:
    assert permits(schema_of_calls(TOOLS, parallel=True), value) is is_allowed


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": ["object", "null"], "properties": {"a": {"type": "boolean"}}},
        {"anyOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}}, {"type": "string"}, {"type": "null"}]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"type": "boolean"}}}}},
        {"title": "Anything"},
    ],
)
def test_arguments_are_an_object_also_where_their_schema_permits_more(parameters: dict[str, Any]) -> None:
    for schema, wrapped in (
        (schema_of_arguments(tool("f", parameters)), lambda value: value),
        (schema_of_calls([tool("f", parameters)], parallel=False), lambda value: [{"name": "f", "arguments": value}]),
    ):
        assert permits(schema, wrapped({"a": True}))
        assert not any(permits(schema, wrapped(value)) for value in (None, "x", [1], 1, True))


def test_one_call_at_a_time_where_they_are_not_parallel() -> None:
    schema, call = schema_of_calls(TOOLS, parallel=False), {"name": "now", "arguments": {}}
    assert permits(schema, [call]) and not permits(schema, [call, call])


def test_a_list_of_calls_ends_at_its_limit() -> None:
    call = {"name": "now", "arguments": {}}
    for schema in (schema_of_calls(TOOLS, parallel=True), schema_of_calls_or({"type": "object"}, TOOLS, parallel=True)):
        assert permits(schema, [call] * MAX_CALLS) and not permits(schema, [call] * (MAX_CALLS + 1))


def test_an_answer_in_its_format_may_come_instead_of_calls() -> None:
    answer = {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": "integer"}}}
    schema = schema_of_calls_or(answer, TOOLS, parallel=True)
    assert permits(schema, {"x": 1}) and permits(schema, [{"name": "now", "arguments": {}}])
    assert not permits(schema, {"x": "text"})


def test_arguments_have_the_properties_that_are_named_and_no_others() -> None:
    schema = schema_of_arguments(tool("f", {"type": "object", "properties": {"a": {"type": "integer"}}}))
    assert permits(schema, {"a": 1}) and not permits(schema, {"a": 1, "b": 2})
