"""JSON that is still being written, beside Python's own parser."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.api.openai.json_scanner import JsonScanner, NotJson, escaped, is_json, members_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=3)
TOKENS = st.sampled_from([*'{}[],:"\\ \n', '"a"', '"a": ', "1", "-", ".5", "e3", "true", "nul", "\\u00", "12", "\x01"])


def is_json_with_control_characters(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse, strict=False)
    except ValueError:
        return False
    return True


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_a_value_ends_with_its_last_character_and_not_before(
    value: dict[str, Any], ensure_ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    scanner = JsonScanner(at=2)
    for end in range(len(text)):
        assert scanner.follow("x " + text[:end]) is None
    assert scanner.follow("x " + text + "}") == 2 + len(text)
    assert {name: json.loads(written) for name, written in scanner.members.items()} == value
    assert JsonScanner().follow(text) == len(text) and members_of(text) == scanner.members


@given(st.lists(TOKENS, max_size=8).map("".join))
def test_what_is_json_is_what_pythons_parser_takes_for_it(text: str) -> None:
    assert is_json(text) is is_json_with_control_characters(text)


@given(st.lists(TOKENS, max_size=8).map("".join))
def test_an_error_is_found_at_the_same_place_however_the_text_is_cut(text: str) -> None:
    whole, part = JsonScanner(), JsonScanner()

    def failed(scanner: JsonScanner, seen: str) -> bool:
        try:
            return scanner.follow(seen) is not None
        except NotJson:
            return True

    ended = failed(whole, text)
    assert any(failed(part, text[:end]) for end in range(len(text) + 1)) is ended
    assert (part.at, part.members) == (whole.at, whole.members)


def test_the_member_that_has_begun_is_known() -> None:
    scanner = JsonScanner()
    assert scanner.follow('{"name": {"name": 1}, "argu') is None
    assert (scanner.members, scanner.key) == ({"name": '{"name": 1}'}, None)
    assert scanner.follow('{"name": {"name": 1}, "arguments": [{"x"') is None
    assert scanner.key == "arguments"


def test_the_depth_has_no_limit() -> None:
    depth = 100_000
    assert is_json("[" * depth + "]" * depth)
    assert is_json('{"a":' * depth + "1" + "}" * depth)
    assert not is_json("[" * depth)


def test_of_two_members_with_one_name_the_first_counts() -> None:
    assert members_of('{"a": 1, "a": 2}') == {"a": "1"}


@given(OBJECTS, st.sampled_from([None, 2]))
def test_control_characters_in_strings_are_escaped_and_nothing_else_changes(
    value: dict[str, Any], indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    raw = text.replace("\\\\", "\\u005c")  # what is left of backslashes and an n is a line end
    raw = raw.replace("\\n", "\n").replace("\\t", "\t").replace("\\u0001", "\x01")
    assert json.loads(escaped(raw)) == value
    assert escaped(text) == text
