"""An end for what the grammar of a JSON text leaves without one: numbers, texts, lists and objects.

JSON Schema cannot limit the digits of a number without excluding exponents, and a limit beside a pattern makes each
mask of the grammar ten times as costly. The grammar counts no members of an object that may have others beside optional
properties. A model may repeat a digit, a word or a member until its context is full. So after enough of them a value
must end as soon as the grammar allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_DIGITS = 32  # in a row; a double has 17, decimals have up to 28 by default

_DIGITS = frozenset(b"0123456789")
_QUOTE, _BACKSLASH, _COMMA, _COLON, _BRACE = b'"\\,:{'
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_MEMBER_BEHIND_TEXT = b'",'

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which tokens begin with a digit or a quotation mark, and which have a comma behind a text, or with no text before
    it.
    """

    digits: Flags
    quotes: Flags
    commas_behind_text: Flags
    commas: Flags

    @classmethod
    def of_pieces(cls, pieces: Sequence[bytes]) -> "Vocabulary":
        """Takes 50 ms for 49,000 tokens."""
        return cls(
            digits=np.array([piece[:1].isdigit() for piece in pieces]),
            quotes=np.array([piece[:1] == b'"' for piece in pieces]),
            commas_behind_text=np.array([_MEMBER_BEHIND_TEXT in piece for piece in pieces]),
            commas=np.array([b"," in piece.partition(b'"')[0] or _MEMBER_BEHIND_TEXT in piece for piece in pieces]),
        )


@dataclass(slots=True)
class _Open:
    """A list or an object that has begun."""

    is_object: bool
    members: int = 1


class ValueEnd:
    """Follows one JSON text.

    characters, name_characters, items, properties: of a text, of a property's name, of a list and of an object, before
    it must end.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, characters: int, name_characters: int, items: int, properties: int
    ) -> None:
        self._vocabulary = vocabulary
        self._most_characters = characters
        self._most_name_characters = name_characters
        self._most_items, self._most_properties = items, properties
        self._open: list[_Open] = []
        self._characters = self._digits = 0  # of the text or of the number that is being written
        self._is_in_text = False
        self._is_escaped = False
        self._is_name = False  # of a property: the text that is being written, or that comes next

    def follow(self, piece: bytes) -> None:
        """Advance by the bytes of a token."""
        for byte in piece:
            if self._is_in_text:
                self._is_in_text = self._is_escaped or byte != _QUOTE
                self._is_escaped = not self._is_escaped and byte == _BACKSLASH
                self._characters += byte & 0xC0 != 0x80  # the first byte of a character
            else:
                self._is_in_text = byte == _QUOTE
                self._characters = 0
                self._digits = self._digits + 1 if byte in _DIGITS else 0
                self._follow_structure(byte)

    def discourages(self, token: int) -> bool:
        """Return whether the token would go on with a value that must end."""
        continuing = self._continuing()
        return continuing is not None and bool(continuing[token])

    def restrict(self, forbidden: Flags) -> None:
        """Forbid to go on with a value that must end, if anything else is allowed; in place."""
        continuing = self._continuing()
        if continuing is not None and not (forbidden | continuing).all():
            forbidden |= continuing

    def _continuing(self) -> Flags | None:
        """Return the tokens that go on with the value; None: it need not end."""
        vocabulary, is_full = self._vocabulary, bool(self._open) and self._is_full(self._open[-1])
        if self._is_in_text:
            most = self._most_name_characters if self._is_name else self._most_characters
            going_on = ~vocabulary.quotes if self._characters >= most else None
            next_member = vocabulary.commas_behind_text if is_full else None
        else:
            going_on = vocabulary.digits if self._digits >= MAX_DIGITS else None
            next_member = vocabulary.commas if is_full else None
        return next_member if going_on is None else going_on if next_member is None else going_on | next_member

    def _is_full(self, part: _Open) -> bool:
        return part.members >= (self._most_properties if part.is_object else self._most_items)

    def _follow_structure(self, byte: int) -> None:
        if byte in _OPENING:
            self._is_name = byte == _BRACE
            self._open.append(_Open(is_object=self._is_name))
        elif byte == _COLON:
            self._is_name = False
        elif self._open and byte in _CLOSING:
            self._open.pop()
        elif self._open and byte == _COMMA:
            self._open[-1].members += 1
            self._is_name = self._open[-1].is_object
