"""Turns token bytes into text that may be published: whole UTF-8 characters, without any part of a stop string."""

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Assembles one sequence's text piece by piece.

    Text that could be the beginning of a stop string is held back until it is known not to be one.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped = False  # a stop string has occurred: no text follows
        self.length = 0  # characters decoded so far, held ones included
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, piece: bytes) -> str:
        """Take the bytes of the next token; returns the text that is safe to publish now."""
        text = self._decoder.decode(piece)
        self.length += len(text)
        self._held += text
        matches = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if matches:
            self.stopped = True
            self.length -= len(self._held) - min(matches)
            return self._release(min(matches), drop_rest=True)
        return self._release(len(self._held) - self._suspicious())

    def finish(self) -> str:
        """Return what was held back, at an end without a stop string. An unfinished character is dropped."""
        return "" if self.stopped else self._held

    def _release(self, count: int, *, drop_rest: bool = False) -> str:
        text, rest = self._held[:count], self._held[count:]
        self._held = "" if drop_rest else rest
        return text

    def _suspicious(self) -> int:
        """Length of the longest tail of the held text with which some stop string begins."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
