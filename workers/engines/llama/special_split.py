"""Cuts a text into pieces at special tokens, so that llama.cpp's tokens of the pieces are those of the whole.

llama.cpp takes the longest special tokens out of a text first, then shorter ones out of what is left, and tokenizes
each rest by itself. So a text can be cut where a special token begins that nothing else can reach into: no other one
contains it, lies in it or overlaps with it.
"""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

SPECIALS_PER_PIECE = 64  # llama.cpp's steps grow with the square of it
_LONGEST = 64  # bytes of a special token that is looked at; longer ones are runs of spaces


class SpecialSplit:
    """Args: texts: of all special tokens. stripping: those that take white space around them with them."""

    def __init__(self, texts: Collection[bytes], stripping: Collection[bytes] = ()) -> None:
        known = frozenset(text for text in texts if text)
        together = b"\0".join(known)
        prefixes = {text[:size] for text in known for size in range(1, len(text))}
        suffixes = {text[size:] for text in known for size in range(1, len(text))}

        def stands_apart(text: bytes) -> bool:
            overlaps = any(text[:size] in suffixes or text[size:] in prefixes for size in range(1, len(text)))
            return not overlaps and together.count(text) == 1 and known.isdisjoint(_parts(text))

        candidates = (text for text in known - frozenset(stripping) if len(text) <= _LONGEST and text.strip() == text)
        apart = sorted(filter(stands_apart, candidates))
        self._apart = re.compile(b"|".join(map(re.escape, apart))) if apart else None

    def starts(self, text: bytes) -> list[int]:
        """Return where special tokens begin at which the text may be cut; each is one token."""
        return [] if self._apart is None else [match.start() for match in self._apart.finditer(text)]


def pieces(text: bytes, starts: Sequence[int], *, specials: int = SPECIALS_PER_PIECE) -> list[bytes]:
    """Return the text in pieces, each with at most so many of the special tokens that begin at `starts`."""
    cuts = [0, *starts[specials::specials], len(text)]
    return [text[begin:end] for begin, end in pairwise(cuts)]


def _parts(text: bytes) -> set[bytes]:
    """Return everything that lies in the text, without the whole text."""
    size = len(text)
    return {text[begin:end] for begin in range(size) for end in range(begin + 1, size + 1)} - {text}
