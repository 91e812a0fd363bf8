"""The base of every request schema: null and unknown names."""

from typing import Any

import pytest
from marshmallow import ValidationError, fields, validate

from app.api.schemas.fields import TextField, WholeNumber
from app.api.schemas.request_schema import RequestSchema


class InnerSchema(RequestSchema):
    count = WholeNumber(validate=validate.Range(1, 5))


class OuterSchema(RequestSchema):
    name = TextField(required=True)
    inner = fields.Nested(InnerSchema)


def messages(data: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        OuterSchema().load(data)
    return caught.value.messages


def test_null_in_an_optional_field_is_the_same_as_no_field_at_any_depth() -> None:
    assert OuterSchema().load({"name": "a", "inner": None}) == {"name": "a"}
    assert OuterSchema().load({"name": "a", "inner": {"count": None}}) == {"name": "a", "inner": {}}


def test_null_in_a_required_field_is_refused() -> None:
    assert list(messages({"name": None})) == ["name"]


def test_an_unknown_name_is_refused_also_with_null_and_at_any_depth() -> None:
    assert messages({"name": "a", "nam": None}) == {"nam": ["Unknown parameter. Did you mean 'name'?"]}
    assert messages({"name": "a", "inner": {"x": 1}}) == {
        "inner": {"x": ["Unknown parameter. Known parameters: count."]}
    }


@pytest.mark.parametrize("data", [None, [], "a", 3])
def test_what_is_not_an_object_is_refused(data: Any) -> None:
    assert list(messages(data)) == ["_schema"]


def test_of_many_unknown_names_the_first_few_are_refused() -> None:
    unknown = {f"x{number}": 1 for number in range(100)}
    assert set(messages({"name": "a", **unknown})) == {f"x{number}" for number in range(16)}
