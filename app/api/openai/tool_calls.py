"""Finds the function calls in the text of a model, as the text comes.

Models write calls in the format of their own chat template. The common formats can be distinguished by their text:

- Hermes, Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, with words before, several in a row.
- Llama 3: nothing but `{"name": ..., "parameters": {...}}`, perhaps after `<|python_tag|>`, several with `;` between.
- Mistral: `[TOOL_CALLS]` and a list of such objects, newer ones `NAME[ARGS]{...}`; what follows the tag alone, where
  the tag is a control token.
- Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`, now and then without
  the first tag.

A grammar (`app.api.openai.tool_schema`) makes the list, or of a named function its arguments alone.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.api.openai.call_formats import after_name, may_be_named, xml_calls


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class CallBegins:
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of the last call's arguments."""

    text: str


Piece = Words | CallBegins | Arguments


class Reader(Protocol):
    """Reads the text of one output as it comes."""

    def feed(self, text: str) -> Iterator[Piece]: ...

    def finish(self) -> Iterator[Piece]:
        """Return what is left at the end of the text."""


class PlainReader:
    """No calls are expected."""

    def feed(self, text: str) -> Iterator[Piece]:
        if text:
            yield Words(text)

    def finish(self) -> Iterator[Piece]:
        return iter(())


class ArgumentsReader:
    """All of the text is the arguments of one call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_begun = False

    def feed(self, text: str) -> Iterator[Piece]:
        if not self._has_begun:
            self._has_begun = True
            yield CallBegins(self._name)
        if text:
            yield Arguments(text)

    def finish(self) -> Iterator[Piece]:
        return self.feed("")


_CALL_ID_DIGITS = 9  # as Mistral's template wants them
_TAGS = {
    "<tool_call>": "</tool_call>",
    "<function=": "</function>",
    "<|python_tag|>": "",  # goes before a bare call
    "[TOOL_CALLS]": "",
    "</tool_call>": "",  # its beginning was left out
}
_SEPARATORS = " \t\r\n;,"
_BEGINNINGS = ('{"name"', '{"type"', '{"id"', '{"function"', '{"parameters"', '{"arguments"')
_WHITE = re.compile(r"\s+")
_LOOKED_AT = 24  # characters that distinguish a call from other JSON
_decoder = json.JSONDecoder()


class CallReader:
    """Finds calls in any of the formats, and the words around them. A call is returned when it is complete.

    Text that looks like a call and is none is words.
    """

    def __init__(
        self,
        names: Collection[str],
        *,
        most: int | None = None,
        lists_only: bool = False,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Read calls of these functions.

        Args:
            names: of the functions.
            most: calls returned at most, None = all.
            lists_only: a bare object is no call but the output itself (`response_format`).
            parameters: the schemas of the functions' arguments, by name.
        """
        self._names = frozenset(names)
        self._parameters = parameters or {}
        self._most = most
        self._lists_only = lists_only
        self._held = ""
        self._expects_call = True  # nothing but calls so far
        self._returned_calls = 0
        self._may_be_complete = False

    def feed(self, text: str) -> Iterator[Piece]:
        self._held += text
        self._may_be_complete = "}" in text or "]" in text  # else the JSON held is as incomplete as before
        return self._read(is_over=False)

    def finish(self) -> Iterator[Piece]:
        return self._read(is_over=True)

    def _read(self, *, is_over: bool) -> Iterator[Piece]:
        while self._held:
            before = len(self._held)
            pieces = self._bare(is_over) if self._expects_call else None
            yield from pieces if pieces is not None else self._tagged(is_over)
            if len(self._held) == before:
                return

    def _bare(self, is_over: bool) -> list[Piece] | None:
        """Return calls without a tag at the beginning of the text held; None: there are none, and none will come."""
        text = self._held.lstrip(_SEPARATORS)
        if not text:
            return self._words(self._held, "") if is_over else []
        if not self._lists_only and may_be_named(text, self._names):
            return self._named(text, is_over)
        if not self._may_be_call(text):
            return None
        decoded = _json_at_start(text) if is_over or self._may_be_complete else None
        if decoded is None:
            return None if is_over else []
        value, end = decoded
        calls = self._calls(value, bare=True)
        if calls is None:
            return None
        self._held = text[end:]
        return self._return_calls(calls)

    def _named(self, text: str, is_over: bool) -> list[Piece] | None:
        head = after_name(text) if is_over or self._may_be_complete else None
        decoded = _json_at_start(text[head[1] :]) if head else None
        if head is None or decoded is None:
            return None if is_over else []
        calls = self._calls({"name": head[0], "arguments": decoded[0]}, bare=True)
        if calls is None:
            return None
        self._held = text[head[1] + decoded[1] :]
        return self._return_calls(calls)

    def _may_be_call(self, text: str) -> bool:
        looks = _WHITE.sub("", text[: 2 * _LOOKED_AT])[:_LOOKED_AT]
        is_list = looks.startswith("[") and not looks.startswith("[TOOL")
        if self._lists_only and not is_list:
            return False
        looks = looks[1:] if is_list else looks
        return any(looks.startswith(one[: len(looks)]) for one in _BEGINNINGS)

    def _tagged(self, is_over: bool) -> list[Piece]:
        """Return the words up to the next tag, or the calls inside of a tag."""
        at, tag = min(((at, tag) for tag in _TAGS if (at := self._held.find(tag)) >= 0), default=(-1, ""))
        if at < 0:
            safe = len(self._held) if is_over else len(self._held) - _suspicious(self._held)
            return self._words(self._held[:safe], self._held[safe:])
        if at > 0 and self._held[:at].strip():
            return self._words(self._held[:at].rstrip(), self._held[at:])
        inside = self._held[at + len(tag) :]
        closing = _TAGS[tag]
        if not closing:
            self._held, self._expects_call = inside, True
            return []
        end = inside.find(closing)
        if end < 0 and not is_over:
            return []
        decoded = _json_at_start((inside if end < 0 else inside[:end]).lstrip())
        written = self._held[at:] if end < 0 else self._held[at : at + len(tag) + end + len(closing)]
        value = xml_calls(written, self._parameters) if decoded is None else decoded[0]
        calls = self._calls(value, bare=False)
        rest = "" if end < 0 else inside[end + len(closing) :]
        if calls is None:
            return self._words(self._held[: len(self._held) - len(rest)], rest)
        self._held, self._expects_call = rest, True
        return self._return_calls(calls)

    def _words(self, text: str, rest: str) -> list[Piece]:
        """Return words, but not the separators between calls."""
        self._held = rest
        if self._returned_calls and not text.strip(_SEPARATORS):
            return []
        self._expects_call = self._expects_call and not text.strip()
        return [Words(text)] if text else []

    def _calls(self, value: Any, *, bare: bool) -> list[tuple[str, str]] | None:
        """Return name and arguments of each call; None where the value is something else."""
        calls = [self._call(item, bare=bare) for item in (value if isinstance(value, list) else [value])]
        return None if None in calls or not calls else [call for call in calls if call is not None]

    def _call(self, value: Any, *, bare: bool) -> tuple[str, str] | None:
        function = value.get("function") if isinstance(value, dict) else None
        value = function if isinstance(function, dict) else value
        if not isinstance(value, dict):
            return None
        name = value.get("name", function)
        arguments = value.get("arguments", value.get("parameters", None if bare else {}))
        if isinstance(arguments, str):
            decoded = _json_at_start(arguments)
            arguments = decoded[0] if decoded else None
        if not isinstance(name, str) or not isinstance(arguments, dict) or (bare and name not in self._names):
            return None
        return name, json.dumps(arguments, ensure_ascii=False)

    def _return_calls(self, calls: list[tuple[str, str]]) -> list[Piece]:
        left = len(calls) if self._most is None else max(0, self._most - self._returned_calls)
        self._returned_calls += len(calls[:left])
        return [piece for name, text in calls[:left] for piece in (CallBegins(name), Arguments(text))]


def reader_of(tools: Sequence[Mapping[str, Any]], *, named: str | None, parallel: bool, lists_only: bool) -> Reader:
    """Return the reader of an output. tools: the functions that may be called. named: the one that must be called."""
    if not tools:
        return PlainReader()
    if named is not None:
        return ArgumentsReader(named)
    parameters = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    return CallReader(list(parameters), most=None if parallel else 1, lists_only=lists_only, parameters=parameters)


def call_id(job_id: str, number: int) -> str:
    """Return the id of a call, the same at each reading of the output."""
    return hashlib.sha256(f"{job_id} {number}".encode()).hexdigest()[:_CALL_ID_DIGITS]


def _json_at_start(text: str) -> tuple[Any, int] | None:
    """Return the JSON value at the start of a text, and where it ends; None where there is no complete one."""
    try:
        return _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None


def _suspicious(text: str) -> int:
    """Count the characters at the end that may begin a tag, with the white space before them."""
    for size in range(min(len(text), max(map(len, _TAGS)) - 1), 0, -1):
        if any(tag.startswith(text[-size:]) for tag in _TAGS):
            return len(text) - len(text[:-size].rstrip())
    return len(text) - len(text.rstrip())
