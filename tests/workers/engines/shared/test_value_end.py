import numpy as np
import pytest

from workers.engines.shared.value_end import MAX_DIGITS, ValueEnd, Vocabulary

MANY = b"1" * MAX_DIGITS
DIGIT, LETTER, QUOTE = range(3)
PIECES = [b"1", b"a", b'"']  # a vocabulary
WITH_COMMAS = [b",", b", ", b'",', b'"",', b"1,", b"a,", b'"', b"}", b'": "a, b']


def value_end(pieces: list[bytes] = PIECES) -> ValueEnd:
    return ValueEnd(Vocabulary.of_pieces(pieces), characters=100, name_characters=50, items=4, properties=3)


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
    whole, bytewise = value_end(), value_end()
    whole.follow(text)
    for byte in text:
        bytewise.follow(bytes([byte]))
    assert (whole.discourages(DIGIT), bytewise.discourages(DIGIT)) == (is_due, is_due)


@pytest.mark.parametrize(
    ("text", "is_due"),
    [
        (b'"' + b"a" * 99, False),
        (b'"' + b"a" * 100, True),
        (('"' + "\u00e9" * 99).encode(), False),
        (('"' + "\u00e9" * 100).encode(), True),
        (b'"' + b"a" * 100 + b'"', False),
        (b'"' + b"a" * 60 + b'", "' + b"a" * 60, False),
        (b'"' + MANY, False),
        (b"a" * 200, False),
    ],
)
def test_a_text_must_end_after_enough_characters(text: bytes, is_due: bool) -> None:
    end = value_end()
    end.follow(text)
    assert end.discourages(LETTER) is is_due
    assert not end.discourages(QUOTE)


@pytest.mark.parametrize(
    ("text", "is_due"),
    [
        (b'{"' + b"a" * 49, False),
        (b'{"' + b"a" * 50, True),
        (b'{"a": 1, "' + b"a" * 50, True),
        (b'{"a": {"b": [1]}, "' + b"a" * 50, True),
        (b'[{"a": [{"' + b"a" * 50, True),
        (b'{"a": "' + b"a" * 50, False),
        (b'{"a": ["b", "' + b"a" * 50, False),
        (b'["' + b"a" * 50, False),
        (b'"' + b"a" * 50, False),
    ],
)
def test_the_name_of_a_property_must_end_sooner(text: bytes, is_due: bool) -> None:
    end = value_end()
    end.follow(text)
    assert end.discourages(LETTER) is is_due


@pytest.mark.parametrize(
    ("text", "forbidden", "expected"),
    [
        (MANY, [False, False, True], [True, False, True]),
        (MANY[1:], [False, False, True], [False, False, True]),
        (MANY, [False, True, True], [False, True, True]),  # the grammar wants a digit
        (b'"' + b"a" * 100, [False, False, False], [True, True, False]),
        (b'"' + b"a" * 100, [False, False, True], [False, False, True]),  # the pattern is not complete
    ],
)
def test_to_go_on_is_forbidden_where_anything_else_is_allowed(
    text: bytes, forbidden: list[bool], expected: list[bool]
) -> None:
    end, flags = value_end(), np.array(forbidden)
    end.follow(text)
    end.restrict(flags)
    assert flags.tolist() == expected


@pytest.mark.parametrize(
    ("text", "is_due"),
    [
        (b'{"a": 1, "b": 2', False),
        (b'{"a": 1, "b": 2, "c": 3', True),
        (b'{"a": {"b": 1, "c": 2}, "d": 3', False),
        (b'{"a": {"b": 1, "c": 2}, "d": 3, "e": 4', True),
        (b'{"a": 1, "b": 2, "c": {"d": 3', False),
        (b'{"a": ",,,,"', False),
        (b"[1, [2, 3, 4", False),
        (b"[1, [2, 3, 4, 5", True),
        (b"[1, 2, 3, []", True),
        (b"1, 2, 3, 4", False),
    ],
)
def test_a_list_or_an_object_must_end_after_enough_members(text: bytes, is_due: bool) -> None:
    end = value_end(WITH_COMMAS)
    end.follow(text)
    going_on = [piece for token, piece in enumerate(WITH_COMMAS) if end.discourages(token)]
    assert going_on == ([b",", b", ", b'",', b'"",', b"1,", b"a,"] if is_due else [])


def test_a_text_in_the_last_member_may_have_commas_and_only_its_end_goes_on_with_no_other() -> None:
    end = value_end(WITH_COMMAS)
    end.follow(b'{"a": 1, "b": 2, "c": "')
    assert [piece for token, piece in enumerate(WITH_COMMAS) if end.discourages(token)] == [b'",', b'"",']
