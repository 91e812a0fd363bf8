"""An end for the numbers of a JSON text.

JSON Schema cannot limit the digits of a number without excluding exponents, and a model may repeat a digit until its
context is full. So after enough digits in a row the next token may not begin with another one, where the grammar allows
anything else.
"""

import numpy as np
import numpy.typing as npt

MAX_DIGITS = 32  # in a row; a double has 17, decimals have up to 28 by default

_DIGITS = frozenset(b"0123456789")
_QUOTE, _BACKSLASH = b'"\\'

Flags = npt.NDArray[np.bool_]


class NumberEnd:
    """Follows one text. begins_with_digit: of each token of the vocabulary."""

    def __init__(self, begins_with_digit: Flags) -> None:
        self.begins_with_digit = begins_with_digit
        self._digits = 0
        self._is_in_text = False
        self._is_escaped = False

    @property
    def is_due(self) -> bool:
        return self._digits >= MAX_DIGITS

    def follow(self, piece: bytes) -> None:
        """Advance by the bytes of a token."""
        for byte in piece:
            if self._is_in_text:
                self._is_in_text = self._is_escaped or byte != _QUOTE
                self._is_escaped = not self._is_escaped and byte == _BACKSLASH
            else:
                self._is_in_text = byte == _QUOTE
                self._digits = self._digits + 1 if byte in _DIGITS else 0

    def restrict(self, forbidden: Flags) -> None:
        """Forbid digits if the number must end and anything else is allowed; in place."""
        if self.is_due and not (forbidden | self.begins_with_digit).all():
            forbidden |= self.begins_with_digit
