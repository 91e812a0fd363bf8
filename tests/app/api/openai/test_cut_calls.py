"""Calls of every format whose strings are full of tags, cut into deltas and cut off anywhere."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.api.openai.call_reader import CallReader
from app.api.openai.tool_calls import Reader
from tests.app.api.openai.test_call_reader import Read, read

Calls = Sequence[tuple[str, dict[str, Any]]]

TAGS = (
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>",
    "<function=weather>", "</function>", "<parameter=city>", "</parameter>",
)  # fmt: skip
FRAGMENTS = (
    *TAGS,
    "[ARGS]",
    "```",
    "json",
    '{"name": "weather", "arguments": {}}',
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    "\n",
    ", ",
    ";",
    "é",
)
TOOLS: dict[str, Any] = {
    name: {"properties": {key: {"type": "string"} for key in ("city", "code", "note")} | {"days": {"type": "integer"}}}
    for name in ("weather", "get_time", "time")
}
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=6).map("".join)
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"city": TEXTS, "code": TEXTS, "note": TEXTS, "days": st.integers(-9, 99)}
)
CALLS = st.lists(st.tuples(st.sampled_from(sorted(TOOLS)), ARGUMENTS), min_size=1, max_size=3)
_ENDS_A_VALUE = re.compile(r"</parameter>\s*(<parameter=|</function>|</tool_call>)|\n<parameter=")


def in_json(call: tuple[str, Any], arguments: str = "arguments") -> str:
    return json.dumps({"name": call[0], arguments: call[1]}, ensure_ascii=False)


def hermes(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{in_json(call)}\n</tool_call>" for call in calls)


def hermes_list(calls: Calls) -> str:
    return f"<tool_call>{bare_list(calls)}</tool_call>"


def hermes_fenced(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n```json\n{in_json(call)}\n```\n</tool_call>" for call in calls)


def llama(calls: Calls) -> str:
    return "; ".join(in_json(call, "parameters") for call in calls)


def llama_tag(calls: Calls) -> str:
    return f"<|python_tag|>{llama(calls)}"


def llama_function(calls: Calls) -> str:
    return "".join(f"<function={name}>{json.dumps(arguments)}</function>" for name, arguments in calls)


def openai(calls: Calls) -> str:
    return "\n".join(
        json.dumps({"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}})
        for name, arguments in calls
    )


def mistral_list(calls: Calls) -> str:
    return f"[TOOL_CALLS] {bare_list(calls)}"


def mistral(calls: Calls) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments)}" for name, arguments in calls)


def mistral_ids(calls: Calls) -> str:
    return "".join(f"{name}[CALL_ID]a1B2[ARGS]{json.dumps(arguments)}" for name, arguments in calls)


def bare_list(calls: Calls) -> str:
    return f"[{', '.join(map(in_json, calls))}]"


def qwen_coder(calls: Calls) -> str:
    written = ""
    for name, arguments in calls:
        values = [f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items()]
        assume(not any(isinstance(value, str) and _ENDS_A_VALUE.search(f"\n{value}") for value in arguments.values()))
        written += f"<tool_call>\n<function={name}>\n{''.join(values)}</function>\n</tool_call>\n"
    return written


FORMATS: tuple[Callable[[Calls], str], ...] = (
    hermes, hermes_list, hermes_fenced, llama, llama_tag, llama_function, openai, mistral_list, mistral, mistral_ids,
    bare_list, qwen_coder,
)  # fmt: skip
WITH_WORDS = (hermes, hermes_list, hermes_fenced, llama_tag, llama_function, mistral_list, mistral, qwen_coder)


@dataclass(frozen=True)
class Written:
    words: str
    calls: Calls
    text: str


@st.composite
def outputs(draw: st.DrawFn, write: Callable[[Calls], str]) -> Written:
    """Draw calls in a format, perhaps with words before."""
    calls = draw(CALLS)
    words = draw(st.sampled_from(["", "Let me see.", "Is 3 < 4 [sic]?"])) if write in WITH_WORDS else ""
    return Written(words, calls, f"{words}\n{write(calls)}" if words else write(calls))


def cut(text: str, at: Sequence[int]) -> list[str]:
    places = [0, *sorted(place % (len(text) + 1) for place in at), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@pytest.mark.parametrize("write", FORMATS)
@settings(max_examples=40)
@given(st.data(), PLACES)
def test_tags_and_braces_in_strings_belong_to_the_arguments(
    write: Callable[[Calls], str], data: st.DataObject, places: list[int]
) -> None:
    output = data.draw(outputs(write))
    expected = (output.words, list(output.calls))
    assert read(CallReader(TOOLS), [output.text]) == expected
    assert read(CallReader(TOOLS), list(output.text)) == expected
    assert read(CallReader(TOOLS), cut(output.text, places)) == expected


@pytest.mark.parametrize("write", FORMATS)
@settings(max_examples=5)  # each at all its ends
@given(st.data(), PLACES)
def test_an_output_that_is_cut_off_has_the_finished_calls_and_no_markup(
    write: Callable[[Calls], str], data: st.DataObject, places: list[int]
) -> None:
    output, before = data.draw(outputs(write)), 0
    for end in range(len(output.text) + 1):
        words, calls = read(CallReader(TOOLS), [output.text[:end]], is_cut=True)
        assert output.words.startswith(words.rstrip()), output.text[:end]
        assert calls == list(output.calls[: len(calls)]) and len(calls) >= before, output.text[:end]
        assert read(CallReader(TOOLS), cut(output.text[:end], places), is_cut=True) == (words, calls)
        before = len(calls)


@given(CALLS, st.sampled_from([hermes, llama, mistral, bare_list]))
def test_a_call_is_returned_with_the_last_character_of_its_json(calls: Calls, write: Callable[[Calls], str]) -> None:
    for number in range(1, len(calls) + 1):
        text = write(calls[:number]).removesuffix("</tool_call>").removesuffix("\n").removesuffix("]")
        reader = CallReader(TOOLS)
        assert len(list(reader.feed(text))) == number


@given(
    st.lists(st.sampled_from([*FRAGMENTS, "<", "tool_call>", "time", "oops", '"name": ', ":", "1"]) | TEXTS).map(
        "".join
    ),
    PLACES,
    st.booleans(),
    st.sampled_from([{}, {"lists_only": True}, {"named": "time"}, {"most": 1}]),
)
@example("<function=x>\n<parameter=ci\nty>\n1\n</parameter>\n</function>", [], False, {})
def test_any_text_is_read_the_same_however_it_is_cut(
    text: str, places: list[int], is_cut: bool, options: dict[str, Any]
) -> None:
    def result(pieces: Sequence[str]) -> Read:
        reader: Reader = CallReader(TOOLS, **options)
        return read(reader, pieces, is_cut=is_cut)

    assert result(list(text)) == result([text]) == result(cut(text, places))


@given(st.lists(st.sampled_from([*FRAGMENTS, "oops", "time", '"name": ', ":"])).map("".join))
@example('{"<tool_call>')
def test_no_tag_is_ever_among_the_words(text: str) -> None:
    for is_cut in (True, False):
        words, _ = read(CallReader(TOOLS), [text], is_cut=is_cut)
        assert not any(tag in words for tag in TAGS[:4]), words


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)), PLACES)
def test_an_answer_in_its_format_keeps_the_tags_in_its_strings(answer: dict[str, Any], places: list[int]) -> None:
    text = json.dumps(answer, indent=1)
    for end in {len(text), *(place % len(text) for place in places)}:
        pieces = cut(text[:end], places)
        assert read(CallReader(TOOLS, lists_only=True), pieces, is_cut=end < len(text)) == (text[:end], [])
