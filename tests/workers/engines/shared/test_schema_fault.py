"""Schemas with one fault, compiled by the library: the smallest part that has it is found."""

import json
import time
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from app.api.openai.tool_schema import schema_of_calls
from tests.waiting import scaled
from workers.engines.shared.schema_fault import MAX_SECONDS, faulty_part

_TOKENIZER = LLTokenizer("byte")
WRONG = {"type": "any"}


def error_of(schema: dict[str, Any]) -> str:
    return str(LLMatcher(_TOKENIZER, json.dumps({"grammars": [{"json_schema": schema}]}), log_level=0).get_error())


def located(schema: dict[str, Any]) -> str:
    error = error_of(schema)
    assert error
    return ".".join(faulty_part(schema, lambda part: error_of(part) == error))


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (WRONG, ""),
        ({"properties": {"a": {"type": "string"}, "b": WRONG}}, "properties.b"),
        ({"properties": {"a": {"items": {"anyOf": [{}, WRONG]}}}}, "properties.a.items.anyOf.1"),
        ({"properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {"B": {"items": WRONG}}}, "$defs.B.items"),
        ({"items": {"$ref": "#/definitions/a~1b"}, "definitions": {"a/b": WRONG}}, "definitions.a/b"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "properties.a"),
        ({"properties": {"a": {"$ref": "#/$defs/B"}, "b": {}}, "$defs": {}}, "properties.a"),
        ({"items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"$ref": "#/$defs/A", "type": "any"}}}, "$defs.A"),
    ],
)
def test_the_smallest_part_with_the_fault_is_found(schema: dict[str, Any], path: str) -> None:
    assert located(schema) == path


def test_a_fault_in_one_of_several_tools_is_found_in_its_own_schema() -> None:
    parameters = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"items": WRONG}}}
    calls = schema_of_calls([tool({"type": "object"}), tool(parameters)], parallel=True)
    assert located(calls) == "$defs.tool1.$defs.A.items"


def test_the_search_ends_in_bounded_time() -> None:
    schema = {"properties": {f"p{number}": {} for number in range(10_000)}}

    def fails(part: dict[str, Any]) -> bool:
        time.sleep(0.001)
        return False

    started = time.monotonic()
    assert faulty_part(schema, fails) == ()
    assert time.monotonic() - started < MAX_SECONDS + scaled(0.5)
