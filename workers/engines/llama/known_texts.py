"""Tokens of long texts that begin like an earlier one, as each turn of a conversation does: only the rest is read.

A special token parts a text for the tokenizer: what comes before it has the same tokens whatever follows. So the tokens
of an earlier text hold up to the last special token that both have, and what begins there is tokenized by itself.
"""

import bisect
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MAX_TEXTS, MAX_CHARACTERS = 64, 4_000_000  # that are kept
MIN_CHARACTERS = 512  # shorter ones are read in less time than is to be won

Tokenize = Callable[[str, bool], list[int]]


@dataclass(frozen=True, slots=True)
class _Mark:
    """A special token: where its name begins in the text, and which of the tokens it is."""

    position: int
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class _Known:
    text: str
    add_special: bool
    tokens: "array[int]"
    marks: Sequence[_Mark]


class KnownTexts:
    """Any thread may use it. tokenize: (text, add_special) to tokens. special: the names of tokens that part texts."""

    def __init__(self, tokenize: Tokenize, special: Mapping[int, str]) -> None:
        self._tokenize = tokenize
        names = "\0".join(special.values())
        # one whose name is a part of another's may be that other one in the next text
        self._special = {token: name for token, name in special.items() if names.count(name) == 1}
        self._known: list[_Known] = []  # the latest last
        self._lock = threading.Lock()

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        if len(text) < MIN_CHARACTERS:
            return self._tokenize(text, add_special)
        earlier, marks = self._begins_like(text, add_special)
        if marks:
            last = marks[-1]
            tokens = [*earlier.tokens[: last.index], *self._tokenize(text[last.position :], False)]
            marks = [*marks[:-1], *self._marks(text, tokens, last.position, last.index)]
        else:
            tokens = self._tokenize(text, add_special)
            marks = self._marks(text, tokens, 0, 0)
        if marks:
            self._remember(_Known(text, add_special, array("i", tokens), marks))
        return tokens

    def _begins_like(self, text: str, add_special: bool) -> tuple[_Known, Sequence[_Mark]]:
        """The text that has the most in common, and its marks as far as that goes; no marks: there is none."""
        best, count, reach = _NOTHING, 0, -1
        with self._lock:
            known = list(self._known)
        for each in known:
            if each.add_special != add_special:
                continue
            common = bisect.bisect_left(each.marks, True, key=lambda mark: not _holds(mark, each.text, text))
            if common and each.marks[common - 1].position > reach:
                best, count, reach = each, common, each.marks[common - 1].position
        return best, best.marks[:count]

    def _marks(self, text: str, tokens: Sequence[int], start: int, index: int) -> list[_Mark]:
        """Of the tokens from `index` on, whose text begins at `start`."""
        position = start
        special = [number for number in range(index, len(tokens)) if tokens[number] in self._special]
        counts = Counter(tokens[number] for number in special)
        # where they differ the tokenizer put one there, or left one alone: which is which cannot be told
        told = {token for token, count in counts.items() if text.count(self._special[token], start) == count}
        found: list[_Mark] = []
        for number in special:
            if tokens[number] not in told:
                continue
            name = self._special[tokens[number]]
            at = text.index(name, position)
            found.append(_Mark(at, number, name))
            position = at + len(name)
        return found

    def _remember(self, known: _Known) -> None:
        """In the place of texts that it goes on from; the oldest make room."""
        with self._lock:
            kept = [each for each in self._known if not known.text.startswith(each.text)][1 - MAX_TEXTS :]
            kept.append(known)
            while sum(len(each.text) for each in kept) > MAX_CHARACTERS:
                del kept[0]
            self._known = kept


_NOTHING = _Known("", False, array("i"), [])


def _holds(mark: _Mark, text: str, other: str) -> bool:
    end = mark.position + len(mark.name)
    return other.startswith(text[:end])
