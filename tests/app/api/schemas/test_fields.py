"""The bounds of lists and objects, and the field of a message."""

import pytest
from marshmallow import ValidationError, validate

from app.api.schemas.fields import BoundedDict, BoundedList, TextField, errors_under


def test_messages_move_under_the_name_of_their_field() -> None:
    with pytest.raises(ValidationError) as caught, errors_under("a"), errors_under(0):
        raise ValidationError("wrong")
    assert caught.value.messages == {"a": {"0": ["wrong"]}}


def test_the_length_of_a_list_is_checked_before_its_items() -> None:
    field = BoundedList(TextField(), validate=validate.Length(max=2))
    assert field.deserialize(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValidationError) as refused:
        field.deserialize([1, 2, 3])
    assert refused.value.messages == ["Longer than maximum length 2."]


def test_of_many_wrong_items_the_first_few_are_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        BoundedList(TextField()).deserialize(["a", *range(100)])
    assert list(refused.value.messages_dict) == list(range(1, 17))


def test_the_size_of_an_object_is_checked_before_its_members() -> None:
    field = BoundedDict(keys=TextField(), values=TextField(), validate=validate.Length(max=2))
    assert field.deserialize({"a": "b"}) == {"a": "b"}
    with pytest.raises(ValidationError) as refused:
        field.deserialize({"a": 1, "b": 2, "c": 3})
    assert refused.value.messages == ["Longer than maximum length 2."]
