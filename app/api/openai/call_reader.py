"""Finds the function calls in the text of a model, as the text comes.

Models write calls in the format of their own chat template. The common formats can be distinguished by their text:

- Hermes, Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, with words before, several in a row. Small
  models put the JSON into a code fence.
- Llama 3: nothing but `{"name": ..., "parameters": {...}}`, perhaps after `<|python_tag|>`, several with `;` between;
  or `<function=NAME>{...}</function>`.
- Mistral: `[TOOL_CALLS]` and a list of such objects, newer ones `NAME[ARGS]{...}`; what follows the tag alone, where
  the tag is a control token.
- Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`, now and then without
  the first tag.

A grammar (`app.api.openai.tool_schema`) makes the list, or of a named function its arguments alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from app.api.openai.call_formats import call_of, has_mark, head_of, may_be_call, may_have_head, names_function
from app.api.openai.json_scanner import JsonScanner, NotJson, escaped
from app.api.openai.tool_calls import Call, Piece, PlainReader, Reader, Words
from app.api.openai.xml_calls import END_OF_CALL, END_OF_FUNCTION, END_OF_PARAMETER, PARAMETER, NotACall, XmlCall

_CALL, _CALLS, _PYTHON, _FUNCTION = "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function="
_TAGS = (_CALL, _CALLS, _PYTHON, _FUNCTION, END_OF_CALL)  # the last without the first: models leave that out
_XML_TAGS = (*_TAGS, PARAMETER, END_OF_PARAMETER, END_OF_FUNCTION)
_FENCE, _OPENED_FENCE = "```", re.compile(r"```[a-z]*\s*")
_WHITE = " \t\r\n"
_SEPARATORS = f"{_WHITE};,"


class CallReader:
    """Finds calls in any of the formats, and the words around them. A call is returned when it is complete.

    - A call ends where its JSON or its XML ends: tags within its strings belong to them.
    - A call that does not end is returned nowhere.
    - Text that looks like a call and is none is words. Tags are no words, wherever they are.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        most: int | None = None,
        lists_only: bool = False,
        named: str | None = None,
    ) -> None:
        """Read calls of these functions.

        Args:
            parameters: the JSON Schema of each function's arguments, by its name.
            most: calls returned at most, None = all.
            lists_only: a bare object is no call but the output itself (`response_format`).
            named: the function that must be called: a bare object is its arguments.
        """
        self._parameters = parameters
        self._left = most
        self._lists_only = lists_only
        self._named = named or ""
        self._held = ""  # what is not returned yet
        self._white: list[str] = []  # comes after it, and decides nothing: white space may come without an end
        self._state: Callable[[], list[Piece] | None] = self._start
        self._tags: tuple[str, ...] = _TAGS
        self._has_begun = False  # a tag or a call has come
        self._tag = ""  # the opening tag directly before
        self._is_fenced = False  # the call is in a code fence behind the tag
        self._in_list = False
        self._is_listed = False  # in a list that has begun with a call
        self._name = ""  # of the function, where it is not in the object
        self._json = JsonScanner()
        self._json_at = 0
        self._xml = XmlCall({})

    def feed(self, text: str) -> Iterator[Piece]:
        if text.isspace():
            self._white.append(text)
            return iter(())
        self._held, self._white = "".join((self._held, *self._white, text)), []
        return self._read()

    def finish(self, *, is_cut: bool) -> Iterator[Piece]:
        self._held, self._white = "".join((self._held, *self._white)), []
        yield from self._read()
        while not is_cut and (pieces := self._conclude()) is not None:
            yield from pieces
            yield from self._read()
        if words := self._rest(is_cut):
            yield Words(words)
        self._held = ""

    def _read(self) -> Iterator[Piece]:
        """Run the states. Each returns what it has read; None: it needs more text."""
        while self._held and (pieces := self._state()) is not None:
            yield from pieces

    def _start(self) -> list[Piece] | None:
        """Begin a call that may have no tag: at the beginning, and behind tags and calls."""
        text = self._held.lstrip(_SEPARATORS)
        if text.startswith(self._tags):
            return self._take_tag(text)
        if any(tag.startswith(text) for tag in self._tags) or (self._may_be_fenced and _FENCE.startswith(text)):
            return None
        if self._may_be_fenced and text.startswith(_FENCE):
            return self._pass_fence(text)
        self._in_list = text.startswith("[")
        inside = text.removeprefix("[").lstrip(_WHITE)
        if not inside:
            return None
        if inside.startswith("{") and (self._in_list or self._tag or self._named or not self._lists_only):
            return self._begin_object(len(self._held) - len(inside), "" if self._in_list or self._tag else self._named)
        names = None if self._tag == _CALLS else self._parameters
        if self._in_list or (self._lists_only and not self._tag) or not may_have_head(text, names):
            return self._begin_words()
        head = head_of(text, names)
        return None if head is None else self._begin_object(len(self._held) - len(text) + head[1], head[0])

    @property
    def _may_be_fenced(self) -> bool:
        return self._is_fenced or self._tag == _CALL

    def _pass_fence(self, text: str) -> list[Piece] | None:
        if self._is_fenced:
            self._held, self._is_fenced = text[len(_FENCE) :], False
            return []
        fence = _OPENED_FENCE.match(text)
        assert fence is not None
        if fence.end() == len(text):
            return None
        if not text.startswith(("{", "["), fence.end()):
            return self._begin_words()
        self._held, self._is_fenced = text[fence.end() :], True
        return []

    def _begin_object(self, at: int, name: str) -> list[Piece]:
        self._json, self._json_at, self._name, self._state = JsonScanner(at), at, name, self._object
        return []

    def _object(self) -> list[Piece] | None:
        try:
            end = self._json.follow(self._held)
        except NotJson:
            return self._begin_words()
        if self._is_bare and not may_be_call(self._json, self._parameters):
            return self._begin_words()
        if end is None:
            return None
        if self._name:
            return self._take_call(Call(self._name, self._held[self._json_at : end]), end)
        call = call_of(self._json.members, needs_arguments=self._is_bare)
        return self._take_call(call, end) if call or self._is_listed else self._begin_words()

    def _list(self) -> list[Piece] | None:
        """Go on to the next item of a list, or behind it."""
        text = self._held.lstrip(_WHITE)
        after_comma = text[1:].lstrip(_WHITE) if text.startswith(",") else text
        if not after_comma:
            return None
        self._held = after_comma
        if after_comma.startswith("]"):
            self._held, self._in_list, self._is_listed, self._state = after_comma[1:], False, False, self._start
            return []
        return self._begin_object(0, "") if after_comma.startswith("{") else self._begin_words()

    def _function(self) -> list[Piece] | None:
        try:
            read = self._xml.follow(self._held)
        except NotACall:
            self._held = self._held[self._xml.at :]
            return self._begin_words()
        return None if read is None else self._take_call(*read)

    def _take_tag(self, text: str) -> list[Piece]:
        tag = next(tag for tag in self._tags if text.startswith(tag))
        self._held, self._has_begun, self._is_fenced = text[len(tag) :], True, False
        self._tag, self._state = tag if tag in (_CALL, _CALLS, _PYTHON) else "", self._start
        if tag == _FUNCTION:
            self._tags, self._xml, self._state = _XML_TAGS, XmlCall(self._parameters), self._function
        return []

    def _take_call(self, call: Call | None, end: int) -> list[Piece]:
        """Return a call. None: what stands in its place in a list is none."""
        self._held, self._has_begun, self._tag = self._held[end:], True, ""
        self._is_listed, self._state = self._in_list, self._list if self._in_list else self._start
        if call is None or self._left == 0:
            return []
        self._left = None if self._left is None else self._left - 1
        return [Call(call.name, escaped(call.arguments))]

    def _begin_words(self) -> list[Piece]:
        is_answer = self._lists_only and not self._has_begun and self._held.lstrip(_WHITE).startswith(("{", "["))
        self._tag, self._is_fenced, self._in_list, self._is_listed = "", False, False, False
        self._json, self._json_at, self._state = JsonScanner(), 0, self._answer if is_answer else self._words
        return []

    def _answer(self) -> list[Piece] | None:
        """Return JSON that is the output itself. Tags within its strings belong to them."""
        before = self._json_at
        try:
            end = self._json.follow(self._held)
        except NotJson:
            end = self._json.at
        words = self._held[before : self._json.at]
        self._json_at = self._json.at
        if end is not None:
            self._held, self._state = self._held[end:], self._words
        elif not words:
            return None
        return [Words(words)] if words else []

    def _words(self) -> list[Piece] | None:
        """Return words up to the next tag."""
        tag = _pattern(self._tags).search(self._held)
        end = len(self._held) - _withheld(self._held, self._tags) if tag is None else tag.start()
        words, self._held = self._held[:end], self._held[end:]
        if tag is not None:
            words, self._state = words.rstrip(), self._start
        elif not words:
            return None
        return [Words(words)] if words else []

    @property
    def _is_bare(self) -> bool:
        return not (self._tag or self._is_listed or self._name)

    def _conclude(self) -> list[Piece] | None:
        """Decide what is held when no more text comes: a call without its last tag, or words. None: nothing is left."""
        if self._state == self._function and (closed := self._xml.close(self._held)) is not None:
            return self._take_call(*closed)
        if self._state == self._object and self._is_bare and not names_function(self._held, self._parameters):
            return self._begin_words()
        return None

    def _rest(self, is_cut: bool) -> str:
        """Return the words among what is held at the end of the text."""
        text = self._held.lstrip(_SEPARATORS)
        if self._state == self._words:
            return self._held if not is_cut or self._held.isspace() else ""
        if self._state == self._answer:
            return self._held[self._json_at :]
        if self._state == self._start and self._is_fenced and _FENCE.startswith(text):
            return ""
        if self._state == self._start and not self._tag:
            is_words = not (is_cut or has_mark(text)) if text else not self._has_begun
            return self._held if is_words else ""
        return ""


def reader_of(tools: Sequence[Mapping[str, Any]], *, named: str | None, parallel: bool, lists_only: bool) -> Reader:
    """Return the reader of an output. tools: the functions that may be called. named: the one that must be called."""
    if not tools:
        return PlainReader()
    parameters = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    return CallReader(parameters, most=None if parallel else 1, lists_only=lists_only, named=named)


@cache
def _pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tags)))


def _withheld(text: str, tags: tuple[str, ...]) -> int:
    """Count the characters at the end that may begin a tag, with the white space before them."""
    for size in range(min(len(text), max(map(len, tags)) - 1), 0, -1):
        if any(tag.startswith(text[-size:]) for tag in tags):
            return len(text) - len(text[:-size].rstrip())
    return len(text) - len(text.rstrip())
