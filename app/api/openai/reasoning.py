"""Separates the thoughts of a model, `<think>...</think>` at the beginning of an output, from the rest, as it comes."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from app.api.openai.tool_calls import Piece, Reader

BEGIN, END = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


class _At(enum.Enum):
    BEGINNING = enum.auto()
    THOUGHTS = enum.auto()
    GAP = enum.auto()  # after the thoughts, before the first word
    WORDS = enum.auto()


class ThinkingReader:
    """Yields thoughts as they come, then what another reader makes of the rest. Drops white space around thoughts.

    A text that does not begin with the tag has no thoughts: in the middle of an output the tag is a word like others.
    """

    def __init__(self, rest: Reader) -> None:
        self._rest = rest
        self._at = _At.BEGINNING
        self._held = ""
        self._white: list[str] = []  # comes after it, and decides nothing: white space may come without an end
        self._has_thought = False

    def feed(self, text: str) -> Iterator[Piece | Thought]:
        if self._at is not _At.WORDS and text.isspace():
            self._white.append(text)
            return iter(())
        return self._read(text, is_over=False)

    def finish(self, *, is_cut: bool) -> Iterator[Piece | Thought]:
        self._held, self._white = "".join((self._held, *self._white)), []
        if is_cut:
            self._drop_part_of_tag()
        yield from self._read("", is_over=True)
        yield from self._rest.finish(is_cut=is_cut)

    def _drop_part_of_tag(self) -> None:
        if self._at is _At.THOUGHTS:
            self._held = self._held[: len(self._held) - _withheld(self._held)]
        elif self._at is _At.BEGINNING and self._held.strip():
            self._held = ""

    def _read(self, text: str, *, is_over: bool) -> Iterator[Piece | Thought]:
        self._held, self._white = "".join((self._held, *self._white, text)), []
        if self._at is _At.BEGINNING:
            self._begin(is_over)
        if self._at is _At.THOUGHTS:
            yield from self._think(is_over)
        if self._at is _At.GAP:
            self._held = self._held.lstrip()
            self._at = _At.WORDS if self._held else _At.GAP
        if self._at is _At.WORDS:
            text, self._held = self._held, ""
            yield from self._rest.feed(text)

    def _begin(self, is_over: bool) -> None:
        beginning = self._held.lstrip()
        if beginning.startswith(BEGIN):
            self._at, self._held = _At.THOUGHTS, beginning.removeprefix(BEGIN)
        elif is_over or not BEGIN.startswith(beginning):
            self._at = _At.WORDS

    def _think(self, is_over: bool) -> Iterator[Thought]:
        thought, end, rest = self._held.partition(END)
        if not end and not is_over:
            thought = thought[: len(thought) - _withheld(thought)]
        self._held = rest if end else self._held[len(thought) :]
        self._at = _At.GAP if end else _At.THOUGHTS
        thought = thought if self._has_thought else thought.lstrip()
        thought = thought.rstrip() if end or is_over else thought
        if thought:
            self._has_thought = True
            yield Thought(thought)


def _withheld(text: str) -> int:
    """Count the characters at the end that may belong to the end tag, with the white space before it."""
    size = next((size for size in range(min(len(text), len(END) - 1), 0, -1) if text.endswith(END[:size])), 0)
    return len(text) - len(text[: len(text) - size].rstrip())
