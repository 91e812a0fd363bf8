"""Wherever a client puts the schema of its answer, it is followed, or the request is refused."""

from typing import Any

import pytest
from marshmallow import ValidationError

from app.api.schemas.openai.response_format import ANY_OBJECT, ResponseFormat

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
SET = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
NAMED = {"name": "x", "schema": SCHEMA}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "text", "schema": None, "json_schema": None}, None),
        ({"type": "json_object"}, ANY_OBJECT),
        ({"type": "json_object", "schema": None}, ANY_OBJECT),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_object", "json_schema": NAMED}, SCHEMA),
        ({"type": "json_schema", "json_schema": NAMED}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, ANY_OBJECT),
        ({"type": "json_schema", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SET}}, SET),
    ],
)
def test_a_format_of_a_chat_becomes_the_schema_that_came_with_it(given: Any, expected: Any) -> None:
    assert ResponseFormat().deserialize(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ANY_OBJECT),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", **NAMED}, SCHEMA),
        ({"type": "json_schema", "json_schema": NAMED}, SCHEMA),
    ],
)
def test_a_format_of_a_response_becomes_the_schema_that_came_with_it(given: Any, expected: Any) -> None:
    assert ResponseFormat(is_flat=True).deserialize(given) == expected


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"type": "text", "schema": SCHEMA}, "schema"),
        ({"type": "text", "json_schema": NAMED}, "json_schema"),
        ({"type": "json_object", "schema": "x"}, "schema"),
        ({"type": "json_object", "json_schema": "x"}, "json_schema"),
        ({"type": "json_object", "schema": SCHEMA, "json_schema": NAMED}, "schema"),
        ({"type": "json_schema", "schema": SCHEMA, "json_schema": NAMED}, "schema"),
        ({"type": "json_object", "shema": SCHEMA}, "shema"),
        ({"type": "json_schema", "json_schema": {**NAMED, "shema": SCHEMA}}, "json_schema"),
        ({"type": "xml"}, "type"),
        ({"schema": SCHEMA}, "type"),
        (["json_object"], "type"),
    ],
)
@pytest.mark.parametrize("is_flat", [False, True])
def test_a_schema_that_would_not_be_followed_is_refused_by_its_name(given: Any, name: str, is_flat: bool) -> None:
    with pytest.raises(ValidationError) as refused:
        ResponseFormat(is_flat=is_flat).deserialize(given)
    assert list(refused.value.messages_dict) == [name]


def test_strict_refuses_what_no_grammar_holds_by_its_path() -> None:
    with pytest.raises(ValidationError) as refused:
        ResponseFormat().deserialize({"type": "json_object", "schema": SET, "strict": True})
    assert list(refused.value.messages_dict) == ["schema.uniqueItems"]
    with pytest.raises(ValidationError) as refused:
        ResponseFormat().deserialize(
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SET, "strict": True}}
        )
    assert list(refused.value.messages_dict["json_schema"]) == ["schema.uniqueItems"]
