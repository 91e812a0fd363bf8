"""Follows one JSON value through a text that is still being written: where it ends, or that it is none.

It does not recurse: a model may nest its arguments as deep as its tokens last. The grammar is that of RFC 8259, but
models also write line ends and tabs in strings as they are (`escaped`).
"""

import json
import re
from collections.abc import Callable

_WHITE = re.compile(r"[ \t\n\r]*+")
_STRING_PART = re.compile(r'[^"\\]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\]*+)*+')
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SCALAR_CHARACTERS = re.compile(r"[-+.\w]*+")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CLOSERS = {"{": "}", "[": "]"}


class NotJson(Exception):
    """The text is no JSON, however it continues."""


class JsonScanner:
    """Scans one value. Each character is looked at once, however the text is cut.

    Attributes:
        at: what is before this index is JSON.
        members: the members of an outermost object that are complete, by name, as they are written. Of two with the
            same name the first counts: what has been decided by it stays so.
        key: the name of the member that has begun and is not complete.
    """

    def __init__(self, at: int = 0) -> None:
        """at: the index at which the value begins, perhaps after white space."""
        self.at = at
        self.members: dict[str, str] = {}
        self.key: str | None = None
        self._state: Callable[[str], bool] = self._value  # takes a token; False: its end has not come
        self._is_between_tokens = True
        self._is_complete = False
        self._open: list[str] = []
        self._key_at = at
        self._value_at = at  # of the member that has begun
        self._scanned = at  # of a scalar

    def follow(self, text: str) -> int | None:
        """Return the index at which the value ends; None: not yet. text: that of the last call, and more.

        Raises NotJson.
        """
        while not self._is_complete:
            if self._is_between_tokens:
                self.at = _end(_WHITE, text, self.at)
            if self.at == len(text) or not self._state(text):
                return None
        return self.at

    def _value(self, text: str) -> bool:
        character = text[self.at]
        if len(self._open) == 1:
            self._value_at = self.at
        if character == "{":
            return self._begin(character, self._key_or_end)
        if character == "[":
            return self._begin(character, self._value_or_end)
        if character == '"':
            return self._move(self._string, is_in_token=True)
        self._state, self._scanned, self._is_between_tokens = self._scalar, self.at, False
        return self._scalar(text)

    def _value_or_end(self, text: str) -> bool:
        return self._close(text) if text[self.at] == "]" else self._value(text)

    def _key(self, text: str) -> bool:
        if text[self.at] != '"':
            raise NotJson
        self._key_at = self.at
        return self._move(self._rest_of_key, is_in_token=True)

    def _key_or_end(self, text: str) -> bool:
        return self._close(text) if text[self.at] == "}" else self._key(text)

    def _colon(self, text: str) -> bool:
        if text[self.at] != ":":
            raise NotJson
        return self._move(self._value)

    def _comma_or_end(self, text: str) -> bool:
        if text[self.at] == ",":
            return self._move(self._key if self._open[-1] == "{" else self._value)
        if text[self.at] != _CLOSERS[self._open[-1]]:
            raise NotJson
        return self._close(text)

    def _string(self, text: str) -> bool:
        return self._has_string_ended(text) and self._end_value(text)

    def _rest_of_key(self, text: str) -> bool:
        if not self._has_string_ended(text):
            return False
        if len(self._open) == 1:
            self.key = json.loads(text[self._key_at : self.at], strict=False)
        self._state, self._is_between_tokens = self._colon, True
        return True

    def _has_string_ended(self, text: str) -> bool:
        self.at = _end(_STRING_PART, text, self.at)
        if self.at == len(text) or _ESCAPE_BEGUN.match(text, self.at):
            return False
        if text[self.at] != '"':
            raise NotJson
        self.at += 1
        return True

    def _scalar(self, text: str) -> bool:
        self._scanned = _end(_SCALAR_CHARACTERS, text, self._scanned)
        if self._scanned == len(text):
            return False
        if not _SCALAR.fullmatch(text, self.at, self._scanned):
            raise NotJson
        self.at = self._scanned
        return self._end_value(text)

    def _begin(self, opener: str, state: Callable[[str], bool]) -> bool:
        self._open.append(opener)
        return self._move(state)

    def _move(self, state: Callable[[str], bool], *, is_in_token: bool = False) -> bool:
        self.at += 1
        self._state, self._is_between_tokens = state, not is_in_token
        return True

    def _close(self, text: str) -> bool:
        self._open.pop()
        self.at += 1
        return self._end_value(text)

    def _end_value(self, text: str) -> bool:
        self._state, self._is_between_tokens = self._comma_or_end, True
        self._is_complete = not self._open
        if self.key is not None and len(self._open) == 1:
            self.members.setdefault(self.key, text[self._value_at : self.at])
            self.key = None
        return True


def is_json(text: str) -> bool:
    """Return whether all of a text is one JSON value."""
    try:
        end = JsonScanner().follow(text + " ")  # the space ends a number
    except NotJson:
        return False
    return end is not None and not text[end:].strip()


def escaped(written: str) -> str:
    """Return complete JSON as RFC 8259 has it: control characters in its strings are escaped."""
    if not _CONTROL.search(written):
        return written
    return _STRING.sub(lambda string: _CONTROL.sub(lambda one: json.dumps(one[0])[1:-1], string[0]), written)


def members_of(text: str) -> dict[str, str]:
    """Return the members of a complete JSON object as they are written."""
    scanner = JsonScanner()
    scanner.follow(text)
    return scanner.members


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, "these patterns match the empty text"
    return match.end()
