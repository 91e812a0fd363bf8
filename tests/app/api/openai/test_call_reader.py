"""Tool calls in the text of a model, whole and letter by letter."""

import json
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from app.api.openai.call_reader import CallReader
from app.api.openai.tool_calls import Call, Piece, PlainReader, Reader, Words
from tests.waiting import scaled

CITY = '{"name": "weather", "arguments": {"city": "Zürich"}}'
HERMES = f"<tool_call>\n{CITY}\n</tool_call>"


CODER = """<tool_call>
<function=weather>
<parameter=city>
Zürich
West
</parameter>
<parameter=days>
3
</parameter>
<parameter=code>
7
</parameter>
</function>
</tool_call>"""
WEATHER = {"city": "Zürich\nWest", "days": 3, "code": "7"}
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}, "code": {"type": ["string", "null"]}}
PROPERTIES |= {"place": {"type": "object"}}
TOOLS: dict[str, Any] = {"weather": {"type": "object", "properties": PROPERTIES}, "time": {}}


Read = tuple[str, list[tuple[str, Any]]]


def read(reader: Reader, pieces: Sequence[str], *, is_cut: bool = False) -> Read:
    """Return the words, and the calls with their arguments."""
    results: list[Piece] = []
    for piece in pieces:
        results += reader.feed(piece)
    results += reader.finish(is_cut=is_cut)
    words = "".join(piece.text for piece in results if isinstance(piece, Words))
    return words, [(call.name, json.loads(call.arguments)) for call in results if isinstance(call, Call)]


def cuts(text: str) -> list[list[str]]:
    """Yield the text whole, letter by letter, and cut at random as tokens would cut it."""
    random_cuts = []
    for seed in range(5):
        draw, at, pieces = random.Random(seed), 0, []
        while at < len(text):
            size = draw.randint(1, 8)
            pieces.append(text[at : at + size])
            at += size
        random_cuts.append(pieces)
    return [[text], list(text), *random_cuts]


@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        ("It is sunny.\n", "It is sunny.\n", []),
        (HERMES, "", [("weather", {"city": "Zürich"})]),
        (f"Let me see.\n\n{HERMES}", "Let me see.", [("weather", {"city": "Zürich"})]),
        (f"{HERMES}\n{HERMES}\n", "", [("weather", {"city": "Zürich"})] * 2),
        (f"\n{HERMES}\nDone.", "\nDone.", [("weather", {"city": "Zürich"})]),
        (f"<tool_call>{CITY}", "", [("weather", {"city": "Zürich"})]),
        ('{"name": "time", "parameters": {}}', "", [("time", {})]),
        ('<|python_tag|>{"name": "time", "parameters": {"zone": 1}}', "", [("time", {"zone": 1})]),
        (
            '{"name": "time", "parameters": {"n": 1}}; {"name": "time", "parameters": {"n": 2}}',
            "",
            [("time", {"n": 1}), ("time", {"n": 2})],
        ),
        (
            '{"type": "function", "function": {"name": "time", "arguments": "{\\"n\\": 1}"}}',
            "",
            [("time", {"n": 1})],
        ),
        (
            f'[TOOL_CALLS] [{CITY}, {{"name": "time", "arguments": {{}}}}]',
            "",
            [("weather", {"city": "Zürich"}), ("time", {})],
        ),
        (f"[{CITY}]", "", [("weather", {"city": "Zürich"})]),
        ('[TOOL_CALLS]weather[ARGS]{"city": "Bern"}', "", [("weather", {"city": "Bern"})]),
        (
            'Wait.[TOOL_CALLS]time[CALL_ID]a1B2[ARGS]{"n": 1}[TOOL_CALLS]time{"n": 2}',
            "Wait.",
            [("time", {"n": 1}), ("time", {"n": 2})],
        ),
        ('weather[ARGS]{"city": "Bern"}', "", [("weather", {"city": "Bern"})]),
        ("time", "time", []),
        ("time flies", "time flies", []),
        ("time [ARGS] is odd", "time [ARGS] is odd", []),
        ('time{"n": ', "", []),
        ("time[ARGS]", "", []),
        (CODER, "", [("weather", WEATHER)]),
        (f"Let me see.\n{CODER}\n{CODER}", "Let me see.", [("weather", WEATHER)] * 2),
        (CODER.removeprefix("<tool_call>\n"), "", [("weather", WEATHER)]),
        ("<tool_call>\n<function=time>\n</function>\n</tool_call>", "", [("time", {})]),
        (CODER[:60], "", []),
        (CODER.replace("7\n</parameter>\n", "7\n"), "", [("weather", WEATHER)]),
        (CODER.replace("Zürich\nWest\n</parameter>\n", "Zürich\nWest\n"), "", [("weather", WEATHER)]),
        ('<function=time>{"n": "</function>"}</function>', "", [("time", {"n": "</function>"})]),
        ("<tool_call>\n<function=time>\nat noon", "at noon", []),
        ('<tool_call>\n{"name": "time", "arguments": {"n": "a\n\tb"}}\n</tool_call>', "", [("time", {"n": "a\n\tb"})]),
        ('[TOOL_CALLS][{"name": "time", "arguments": {"n\n": "a\\n\r\nb"}}]', "", [("time", {"n\n": "a\n\r\nb"})]),
        ('<tool_call>{"name": "time", "arguments": "{\\"n\\": \\"a\nb\\n\\"}"}', "", [("time", {"n": "a\nb\n"})]),
        ('{"name": "time", "parameters": {"n": "a\nb"}}', "", [("time", {"n": "a\nb"})]),
        ('time[ARGS]{"n": "a\nb"}', "", [("time", {"n": "a\nb"})]),
        ('<function=time>{"n": "a\x01b"}</function>', "", [("time", {"n": "a\x01b"})]),
        (
            '<function=weather>\n<parameter=place>\n{"a": "a\nb"}\n</parameter></function>',
            "",
            [("weather", {"place": {"a": "a\nb"}})],
        ),
        ('<tool_call>{"name": "time"}</tool_call>', "", [("time", {})]),
        ('<tool_call>{"name": "time", "arguments": null}</tool_call>', "", [("time", {})]),
        (f"<tool_call>```json\n{CITY}\n```\n<tool_call>\n```{CITY}```", "", [("weather", {"city": "Zürich"})] * 2),
        ("<tool_call>```sh\nls\n```</tool_call>", "```sh\nls\n```", []),
        ("<tool_call>oops</tool_call> then", "oops then", []),
        (f"<tool_call>[{CITY}, {CITY}]</tool_call>", "", [("weather", {"city": "Zürich"})] * 2),
        (f"<tool_call>{CITY[:-1]}</tool_call>", CITY[:-1], []),
        ('<tool_call>{"name": "no name", "arguments": {}}</tool_call>', '{"name": "no name", "arguments": {}}', []),
        ("<tool_call>", "", []),
        ("a < b and <tool is no tag", "a < b and <tool is no tag", []),
        ('{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
        ('{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', []),
        ('{"name": "time", "arg', "", []),
        ('{"name": "Bob", "arg', '{"name": "Bob", "arg', []),
        ("[1, 2, 3] are numbers", "[1, 2, 3] are numbers", []),
        ("[", "[", []),
        ("  \n", "  \n", []),
        ("", "", []),
    ],
)
def test_calls_are_recognized_in_every_format_however_the_text_is_cut(
    text: str, words: str, calls: list[tuple[str, Any]]
) -> None:
    for pieces in cuts(text):
        assert read(CallReader(TOOLS), pieces) == (words, calls), pieces


def test_words_are_returned_as_they_come() -> None:
    reader = CallReader(TOOLS)
    assert [list(reader.feed(piece)) for piece in ("It", " is", " sunny")] == [
        [Words("It")],
        [Words(" is")],
        [Words(" sunny")],
    ]


@pytest.mark.parametrize(("most", "expected"), [(None, 2), (1, 1)])
def test_no_more_calls_are_returned_than_wanted(most: int | None, expected: int) -> None:
    for text in (f"{HERMES}\n{HERMES}", f"[{CITY}, {CITY}]"):
        words, calls = read(CallReader(TOOLS, most=most), list(text))
        assert (words, len(calls)) == ("", expected)


def test_an_answer_in_its_own_format_is_no_call_though_it_looks_like_one() -> None:
    assert read(CallReader(TOOLS, lists_only=True), list(CITY)) == (CITY, [])
    assert len(read(CallReader(TOOLS, lists_only=True), list(f"[{CITY}]"))[1]) == 1


def test_the_arguments_of_a_named_function_are_a_call_when_they_are_complete() -> None:
    for pieces in cuts('{"name": "<tool_call>", "n": {}}'):
        assert read(CallReader(TOOLS, named="time"), pieces) == ("", [("time", {"name": "<tool_call>", "n": {}})])
    for pieces in cuts('{"n": '):
        assert read(CallReader(TOOLS, named="time"), pieces, is_cut=True) == ("", [])
    for pieces in cuts("I cannot."):
        assert read(CallReader(TOOLS, named="time"), pieces) == ("I cannot.", [])


def test_without_tools_everything_is_words() -> None:
    assert read(PlainReader(), list(HERMES)) == (HERMES, [])


@pytest.mark.parametrize(
    ("begin", "rest"),
    [
        ('{"name": "time", "arguments": {"text": "', "word " * 20_000 + '"}}'),
        ('{"name": "time", "arguments": {"n": ', "1" * 100_000 + "}}"),
        ('[{"name": "time", "arguments": {}},', "\n" * 100_000),
        ("\n" * 100_000, '{"name": "time", "arguments": {}}'),
        ("<function=time>", "\n" * 100_000 + "</function>"),
    ],
)
def test_a_long_call_takes_no_time_that_grows_with_its_square(begin: str, rest: str) -> None:
    reader, text = CallReader(TOOLS), begin + rest
    before = time.process_time()
    calls = [piece for at in range(0, len(text), 2) for piece in reader.feed(text[at : at + 2])]
    assert len(calls) == 1 and time.process_time() - before < scaled(3)
