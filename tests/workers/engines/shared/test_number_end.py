import numpy as np
import pytest

from workers.engines.shared.number_end import MAX_DIGITS, NumberEnd

MANY = b"1" * MAX_DIGITS


@pytest.mark.parametrize(
    ("text", "is_due"),
    [
        (b"", False),
        (MANY[1:], False),
        (MANY, True),
        (b"-0." + MANY, True),
        (b"12." + MANY[1:], False),
        (MANY + b".", False),
        (MANY + b"e", False),
        (MANY + b", ", False),
        (b"1e" + MANY, True),
        (b'"' + MANY, False),
        (b'"\\"' + MANY, False),
        (b'"\\\\", ' + MANY, True),
        (b'{"a1": ' + MANY, True),
        ('"é": '.encode() + MANY, True),
    ],
)
def test_a_number_must_end_after_enough_digits_in_a_row(text: bytes, is_due: bool) -> None:
    whole, bytewise = NumberEnd(np.zeros(3, dtype=bool)), NumberEnd(np.zeros(3, dtype=bool))
    whole.follow(text)
    for byte in text:
        bytewise.follow(bytes([byte]))
    assert (whole.is_due, bytewise.is_due) == (is_due, is_due)


@pytest.mark.parametrize(
    ("text", "forbidden", "expected"),
    [
        (MANY, [False, False, True], [True, False, True]),
        (MANY[1:], [False, False, True], [False, False, True]),
        (MANY, [False, True, True], [False, True, True]),  # the grammar wants a digit
    ],
)
def test_a_digit_is_forbidden_where_anything_else_is_allowed(
    text: bytes, forbidden: list[bool], expected: list[bool]
) -> None:
    number_end, flags = NumberEnd(np.array([True, False, False])), np.array(forbidden)
    number_end.follow(text)
    number_end.restrict(flags)
    assert flags.tolist() == expected
