"""Constraints under the names of vLLM and SGLang."""

from typing import Any

import pytest
from marshmallow import ValidationError

from app.api.schemas.sampling import SamplingSchema

SCHEMA = SamplingSchema()
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}


def load(**params: Any) -> Any:
    return SCHEMA.load(params)


def messages(**params: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        SCHEMA.load(params)
    return caught.value.messages


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"guided_json": OBJECT}, {"json_schema": OBJECT}),
        ({"guided_json": '{"type": "integer"}'}, {"json_schema": {"type": "integer"}}),
        ({"json_schema": '{"type": "integer"}'}, {"json_schema": {"type": "integer"}}),
        ({"guided_regex": "[0-9]+"}, {"regex": "[0-9]+"}),
        ({"guided_grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"ebnf": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"guided_choice": ["yes", 'a "b"', "c\\d"]}, {"grammar": 'root ::= "yes" | "a \\"b\\"" | "c\\\\d"'}),
        ({"structured_outputs": {"json": OBJECT}}, {"json_schema": OBJECT}),
        ({"structured_outputs": {"json_object": True}}, {"json_schema": {"type": "object"}}),
        ({"structured_outputs": {"regex": "x", "json": None, "json_object": False}}, {"regex": "x"}),
        ({"structured_outputs": {"choice": ["a"], "disable_any_whitespace": True}}, {"grammar": 'root ::= "a"'}),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, {"grammar": 'root ::= "a"'}),
    ],
)
def test_each_name_means_one_of_our_parameters(sent: dict[str, Any], meant: dict[str, Any]) -> None:
    assert load(**sent) == meant


@pytest.mark.parametrize(
    "sent",
    [
        {"guided_regex": "x", "guided_json": {}},
        {"regex": "x", "grammar": "x"},
        {"guided_choice": ["x"], "grammar": "x"},
        {"structured_outputs": {"regex": "x"}, "guided_choice": ["x"]},
    ],
)
def test_two_constraints_are_refused_and_both_are_named(sent: dict[str, Any]) -> None:
    ((texts),) = messages(**sent).values()
    assert all(name in texts[0] for name in sent) and "exclude each other" in texts[0]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "_schema"),
        ({"regex": "x", "choice": ["y"]}, "_schema"),
        ({"json_object": False}, "_schema"),
        ({"structural_tag": "x"}, "structural_tag"),
        ({"whitespace_pattern": "x"}, "whitespace_pattern"),
        ({"choice": []}, "choice"),
        ({"choice": ["x\0"]}, "choice"),
        ({"choice": [None]}, "choice"),
        ({"json": "no JSON"}, "json"),
        ({"regex": 1}, "regex"),
    ],
)
def test_structured_outputs_that_mean_nothing_or_two_things_are_refused(value: dict[str, Any], path: str) -> None:
    assert list(messages(structured_outputs=value)["structured_outputs"]) == [path]
