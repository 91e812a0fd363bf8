"""An end for the numbers and texts of a JSON text that its grammar leaves without one.

JSON Schema cannot limit the digits of a number without excluding exponents, and a limit beside a pattern makes each
mask of the grammar ten times as costly. A model may repeat a digit or a word until its context is full. So after enough
of them a value must end as soon as the grammar allows it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_DIGITS = 32  # in a row; a double has 17, decimals have up to 28 by default

_DIGITS = frozenset(b"0123456789")
_QUOTE, _BACKSLASH = b'"\\'

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FirstBytes:
    """Which tokens of a vocabulary begin with a digit, and which with a quotation mark."""

    digits: Flags
    quotes: Flags


class ValueEnd:
    """Follows one JSON text. characters: of a text in it, before it must end."""

    def __init__(self, first_bytes: FirstBytes, characters: int) -> None:
        self._first_bytes = first_bytes
        self._most_characters = characters
        self._characters = self._digits = 0  # of the text or of the number that is being written
        self._is_in_text = False
        self._is_escaped = False

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
        if self._is_in_text:
            return ~self._first_bytes.quotes if self._characters >= self._most_characters else None
        return self._first_bytes.digits if self._digits >= MAX_DIGITS else None
