"""Calls within `<function=...>`: Qwen3-Coder writes `<parameter=KEY>VALUE</parameter>` in it, Llama writes JSON."""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.api.openai.call_formats import FUNCTION_NAME
from app.api.openai.json_scanner import JsonScanner, NotJson, is_json
from app.api.openai.tool_calls import Call

PARAMETER, END_OF_PARAMETER = "<parameter=", "</parameter>"
END_OF_FUNCTION, END_OF_CALL = "</function>", "</tool_call>"
_FOLLOWING = (PARAMETER, END_OF_FUNCTION, END_OF_CALL)  # a value
_LONGEST_TAG = max(map(len, (END_OF_PARAMETER, *_FOLLOWING)))
_TO_BRACKET = re.compile(r"([^>\n]{1,200})>")
_NO_BRACKET = re.compile(r"[^>\n]{0,200}\Z")
_WHITE = re.compile(r"\s*")
_MAY_END_VALUE = re.compile(rf"{END_OF_PARAMETER}|\n{PARAMETER}")
_PYTHONS = {"True": "true", "False": "false", "None": "null"}  # models that write much Python use these


class NotACall(Exception):
    """The text is no call, however it continues."""


class XmlCall:
    """Reads one call, as its text comes.

    A value is a text without escapes. So it ends at the first `</parameter>` behind which the call continues or ends,
    and other tags in it belong to it.

    Attributes:
        at: what is before this index has been read.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """parameters: the JSON Schema of each function's arguments, by which a value is a text, or JSON."""
        self._parameters = parameters
        self._properties: Mapping[str, Any] = {}
        self._name: str | None = None
        self._arguments: dict[str, str] = {}
        self._key: str | None = None  # of the value that has begun
        self._json: JsonScanner | None = None  # the arguments, where they are JSON
        self.at = 0
        self._searched = 0

    def follow(self, text: str) -> tuple[Call, int] | None:
        """Return the call and where it ends; None: not yet.

        text: that of the last call, and more. It begins after `<function=`.
        Raises NotACall.
        """
        if self._name is None and not self._begin(text):
            return None
        while self._json is None:
            if self._key is not None and not self._end_value(text):
                return None
            self.at = _after_white(text, self.at)
            rest = text[self.at : self.at + _LONGEST_TAG]
            if rest.startswith(END_OF_FUNCTION):
                return self._call(self.at + len(END_OF_FUNCTION))
            if rest.startswith(END_OF_CALL):
                return self._call(self.at)
            if rest.startswith("{") and not self._arguments:
                self._json = JsonScanner(self.at)
            elif rest.startswith(PARAMETER):
                if not self._begin_value(text):
                    return None
            elif any(tag.startswith(rest) for tag in _FOLLOWING):
                return None
            else:
                raise NotACall
        return self._json_call(text, self._json)

    def close(self, text: str) -> tuple[Call, int] | None:
        """Return the call and where it ends if the model left out the end of its last value. The text is complete."""
        end = text.find(END_OF_FUNCTION, self.at) if self._key is not None else -1
        if end < 0:
            return None
        self._add_value(text[self.at : end])
        return self._call(end + len(END_OF_FUNCTION))

    def _begin(self, text: str) -> bool:
        name = _before_bracket(text, 0)
        if name is None:
            return False
        self._name, self.at = name.strip(), len(name) + 1
        if not FUNCTION_NAME.fullmatch(self._name):
            raise NotACall
        schema = self._parameters.get(self._name, {})
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        self._properties = properties if isinstance(properties, Mapping) else {}
        return True

    def _begin_value(self, text: str) -> bool:
        key = _before_bracket(text, self.at + len(PARAMETER))
        if key is None:
            return False
        self._key = key.strip()
        self.at = self._searched = self.at + len(PARAMETER) + len(key) + 1
        return True

    def _end_value(self, text: str) -> bool:
        for match in _MAY_END_VALUE.finditer(text, self._searched):
            ends = self._ends_value(text, match)
            self._searched = match.start()
            if ends is None:
                return False
            if ends:
                self._add_value(text[self.at : match.start()])
                self.at = match.end() if match[0] == END_OF_PARAMETER else match.start()
                return True
        self._searched = max(self._searched, len(text) - _LONGEST_TAG)
        return False

    def _ends_value(self, text: str, match: re.Match[str]) -> bool | None:
        """Return whether the value ends here; None: that is not known yet."""
        if match[0] == END_OF_PARAMETER:
            at = _after_white(text, match.end())
            rest = text[at : at + _LONGEST_TAG]
            if rest.startswith(_FOLLOWING):
                return True
            return None if any(tag.startswith(rest) for tag in _FOLLOWING) else False
        try:
            key = _before_bracket(text, match.end())
        except NotACall:
            return False
        if key is None:
            return None
        return key.strip() in self._properties and key.strip() not in (self._key, *self._arguments)

    def _add_value(self, value: str) -> None:
        assert self._key is not None
        value = value.removeprefix("\n").removesuffix("\n")
        self._arguments[self._key] = _as_json(value, self._properties.get(self._key))
        self._key = None

    def _json_call(self, text: str, scanner: JsonScanner) -> tuple[Call, int] | None:
        assert self._name is not None
        begin = self.at
        try:
            end = scanner.follow(text)
        except NotJson:
            raise NotACall from None
        return None if end is None else (Call(self._name, text[begin:end]), end)

    def _call(self, end: int) -> tuple[Call, int]:
        assert self._name is not None
        members = ", ".join(f"{_string(key)}: {value}" for key, value in self._arguments.items())
        return Call(self._name, f"{{{members}}}"), end


def _before_bracket(text: str, at: int) -> str | None:
    """Return the text from an index up to `>`; None: this has not come. Raises NotACall."""
    if match := _TO_BRACKET.match(text, at):
        return match[1]
    if _NO_BRACKET.match(text, at):
        return None
    raise NotACall


def _after_white(text: str, at: int) -> int:
    match = _WHITE.match(text, at)
    assert match is not None
    return match.end()


def _as_json(text: str, schema: Any) -> str:
    """Return a value as JSON: a string where the schema wants one, or knows nothing of it; else what it is."""
    types = _types(schema) if isinstance(schema, Mapping) else {"string"}
    if types == {"string"}:
        return _string(text)
    value = text.strip()
    if value in _PYTHONS:
        return _PYTHONS[value]
    return value if is_json(value) and ("string" not in types or value == "null") else _string(text)


def _types(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema names, itself or in its alternatives; none: any value."""
    schemas = [schema]
    for name in ("anyOf", "oneOf"):
        alternatives = schema.get(name)
        schemas += [one for one in alternatives if isinstance(one, Mapping)] if isinstance(alternatives, list) else []
    named = [one.get("type") for one in schemas]
    return {
        name for types in named for name in (types if isinstance(types, list) else [types]) if isinstance(name, str)
    }


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
