"""The three notations of a time to start."""

import time
from typing import Any

import pytest
from marshmallow import ValidationError

from app.api.schemas.not_before import LATEST, NotBefore, StartTime

FIELD = NotBefore("When.")


def load(value: Any) -> StartTime:
    start: StartTime = FIELD.deserialize(value)
    return start


@pytest.mark.parametrize(
    ("sent", "at"),
    [
        ("2030-01-31T22:00:00Z", 1_896_127_200),
        ("2030-01-31T23:00:00.5+01:00", 1_896_127_200.5),
        ("2030-01-31 22:00Z", 1_896_127_200),
        (1_896_127_200, 1_896_127_200),
        (1_896_127_200.25, 1_896_127_200.25),
        ("0001-01-01T00:00:00+14:00", 0),
        ("9999-12-31T23:59:59-12:00", LATEST),
    ],
)
def test_a_time_is_a_text_with_an_offset_or_unix_seconds(sent: str | float, at: float) -> None:
    assert load(sent) == StartTime(at=at)


def test_a_delay_is_a_text_with_a_plus() -> None:
    before = time.time()
    start = load("+90.5")
    assert start.delay_seconds == 90.5
    assert before + 90.5 <= start.at <= time.time() + 90.5


@pytest.mark.parametrize(
    ("sent", "cure"),
    [
        (3600, r'such as "\+3600"'),
        (-5, "Unix seconds"),
        (float("inf"), "Unix seconds"),
        (10**30, "Unix seconds"),
        ("2030-01-31T22:00:00", "needs an offset"),
        ("2030-01-31", "needs an offset"),
        ("tomorrow", "Must be a time with an offset"),
        ("3600", "Must be a time with an offset"),
        ("+-5", "Must be a time with an offset"),
        ("+9999999999", "Must be a time with an offset"),
        ("2030-02-30T00:00:00Z", "Must be a time with an offset"),
        ("", "Must be a time with an offset"),
        (True, "Must be a string"),
        ([], "Must be a string"),
    ],
)
def test_another_value_is_refused_with_the_notation_that_was_meant(sent: Any, cure: str) -> None:
    with pytest.raises(ValidationError, match=cure):
        load(sent)
