"""What an output is read as: words and function calls."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_CALL_ID_DIGITS = 9  # as Mistral's template wants them


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A complete call. arguments: the text of a JSON object, as the model wrote it, with control characters escaped."""

    name: str
    arguments: str


Piece = Words | Call


class Reader(Protocol):
    """Reads the text of one output as it comes."""

    def feed(self, text: str) -> Iterator[Piece]: ...

    def finish(self, *, is_cut: bool) -> Iterator[Piece]:
        """Return what is left at the end of the text. is_cut: the model would have written more."""


class PlainReader:
    """No calls are expected."""

    def feed(self, text: str) -> Iterator[Piece]:
        if text:
            yield Words(text)

    def finish(self, *, is_cut: bool) -> Iterator[Piece]:
        return iter(())


def call_id(job_id: str, number: int) -> str:
    """Return the id of a call, the same at each reading of the output."""
    return hashlib.sha256(f"{job_id} {number}".encode()).hexdigest()[:_CALL_ID_DIGITS]
