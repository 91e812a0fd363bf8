"""What a JSON object must have to be a call."""

import json
from typing import Any

import pytest

from app.api.openai.call_formats import call_of
from app.api.openai.json_scanner import members_of
from app.api.openai.tool_calls import Call


def called(text: str, *, needs_arguments: bool = True) -> Call | None:
    return call_of(members_of(text), needs_arguments=needs_arguments)


@pytest.mark.parametrize(
    ("value", "is_call"),
    [
        ({"name": "f", "arguments": {"a": 1}}, True),
        ({"name": "f", "parameters": {"a": 1}}, True),
        ({"function": "f", "arguments": {"a": 1}}, True),
        ({"function": {"name": "f", "arguments": '{"a": 1}'}}, True),
        ({"name": "f", "arguments": '{"a": 1}'}, True),
        ({"name": "f", "arguments": [1]}, False),
        ({"name": "f", "arguments": "[1]"}, False),
        ({"name": "f", "arguments": '{"a"'}, False),
        ({"name": 1, "arguments": {}}, False),
        ({"name": "no name", "arguments": {}}, False),
        ({"name": "\ud800", "arguments": {}}, False),
        ({"name": "f"}, False),
        ({}, False),
    ],
)
def test_a_call_has_a_name_that_a_function_may_have_and_an_object(value: Any, is_call: bool) -> None:
    call = called(json.dumps(value))
    assert call == (Call("f", '{"a": 1}') if is_call else None)


def test_arguments_may_be_left_out_where_a_tag_announces_a_call() -> None:
    assert called('{"name": "f"}', needs_arguments=False) == Call("f", "{}")


def test_arguments_stay_as_the_model_wrote_them() -> None:
    written = '{"a":1.0,  "b": 1e400, "c": "\\u00e9\\ud800", "d": ' + "9" * 5000 + "}"
    assert called(f'{{"name": "f", "arguments": {written}}}') == Call("f", written)
    assert called(json.dumps({"name": "f", "arguments": written})) == Call("f", written)


def test_half_a_surrogate_pair_in_arguments_within_a_text_stays_an_escape() -> None:
    call = called('{"name": "f", "arguments": "{\\"a\\": \\"\\ud800\\"}"}')
    assert call == Call("f", '{"a": "\\ud800"}')
    assert call.arguments.encode()
