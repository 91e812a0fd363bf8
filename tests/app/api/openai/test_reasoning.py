"""Thoughts before an answer, whole and letter by letter."""

import time

import pytest

from app.api.openai.call_reader import CallReader
from app.api.openai.reasoning import ThinkingReader, Thought
from app.api.openai.tool_calls import Call, PlainReader, Reader, Words
from tests.app.api.openai.test_call_reader import HERMES, TOOLS, cuts
from tests.waiting import scaled


def read(rest: Reader, pieces: list[str], *, is_cut: bool = False) -> tuple[str, str, int]:
    """Return the thoughts, the words, and the number of calls."""
    reader = ThinkingReader(rest)
    results = [piece for text in pieces for piece in reader.feed(text)]
    results += reader.finish(is_cut=is_cut)
    thoughts = "".join(piece.text for piece in results if isinstance(piece, Thought))
    words = "".join(piece.text for piece in results if isinstance(piece, Words))
    return thoughts, words, sum(isinstance(piece, Call) for piece in results)


@pytest.mark.parametrize(
    ("text", "thoughts", "words"),
    [
        ("<think>\nParis, or\n\nRome?\n</think>\n\nIt is Paris.\n", "Paris, or\n\nRome?", "It is Paris.\n"),
        ("\n<think>a < b </ c</think>d", "a < b </ c", "d"),
        ("<think>\n\n</think>\n\nHello", "", "Hello"),
        ("<think>cut off ", "cut off", ""),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("<think></think>", "", ""),
        ("No tag <think>here</think>", "", "No tag <think>here</think>"),
        ("  <thi", "", "  <thi"),
        ("<thinking> it over", "", "<thinking> it over"),
        (" \n", "", " \n"),
        ("", "", ""),
    ],
)
def test_thoughts_are_separated_from_words_however_the_text_is_cut(text: str, thoughts: str, words: str) -> None:
    for pieces in cuts(text):
        assert read(PlainReader(), pieces) == (thoughts, words, 0), pieces


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [("<think>cut off </thi", "cut off"), ("<think>cut off ", "cut off"), ("\n<thin", ""), ("<think>", "")],
)
def test_no_part_of_a_tag_is_left_of_an_output_that_is_cut_off(text: str, thoughts: str) -> None:
    for pieces in cuts(text):
        assert read(PlainReader(), pieces, is_cut=True) == (thoughts, "", 0), pieces


def test_calls_are_recognized_behind_thoughts_and_none_in_them() -> None:
    for pieces in cuts(f"<think>{HERMES}?</think>\n{HERMES}"):
        thoughts, words, calls = read(CallReader(TOOLS), pieces)
        assert (thoughts, words, calls) == (f"{HERMES}?", "", 1)


def test_thoughts_are_returned_as_they_come() -> None:
    reader = ThinkingReader(PlainReader())
    pieces = [list(reader.feed(text)) for text in ("<think>", "\nSo", " then", ".\n", "</think>", "\n\n", "Yes", "!")]
    assert pieces == [[], [Thought("So")], [Thought(" then")], [Thought(".")], [], [], [Words("Yes")], [Words("!")]]


@pytest.mark.parametrize("begin", ["", "<think>", "<think>So", "<think></think>"])
def test_white_space_without_an_end_takes_no_time_that_grows_with_its_square(begin: str) -> None:
    before = time.process_time()
    thoughts, words, _ = read(PlainReader(), [begin, *["\n"] * 100_000, "Hi"])
    assert f"{thoughts}{words}".endswith("Hi") and time.process_time() - before < scaled(3)
