"""Finds out what a chat template expects, by rendering short conversations of marked words: no word may get lost.

Templates differ in what they take: contents as texts or as lists of parts, arguments of calls as objects or as JSON in
a text, `none` beside calls, a system message or none. A template that does not get its form often fails; some return a
prompt from which the question is missing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from workers.engines.shared.child_process import ChildFailed, ChildLimit

Message = dict[str, Any]
Render = Callable[[Sequence[Message], Sequence[dict[str, Any]]], str]
"""Renders messages as they are, with tools or without. Raises ChildFailed."""

QUESTION, ANSWER, RULE, SECOND_RULE = "zqquestion", "zqanswer", "zqrule", "zqsecondrule"
TOOL, ARGUMENT, VALUE, RESULT = "zqtool", "zqargument", "zqvalue", "zqresult"
_USER = {"role": "user", "content": QUESTION}
_RULE = {"role": "system", "content": RULE}
_SECOND_RULE = {"role": "system", "content": SECOND_RULE}
_ANSWER = {"role": "assistant", "content": ANSWER}
_SCHEMA = {"type": "object", "properties": {"zqproperty": {"type": "string"}}}
_TOOL = {"type": "function", "function": {"name": TOOL, "description": "A tool.", "parameters": _SCHEMA}}
_FUNCTION = {"name": TOOL, "arguments": {ARGUMENT: VALUE}}
_CALL = {"id": "function0", "type": "function", "function": _FUNCTION}  # nine letters, as Mistral's templates require
_RESULT = {"role": "tool", "tool_call_id": "function0", "name": TOOL, "content": RESULT}


class SystemMessages(Enum):
    """Where a template takes the system's texts."""

    EACH = auto()  # in messages of their own, at any place
    FIRST = auto()  # in one message, the first
    NONE = auto()  # nowhere: they stand before the user's text


class TextBesideCalls(Enum):
    """Where a template takes the text of a message that also calls tools."""

    TOGETHER = auto()
    APART = auto()  # in a message of its own before the calls
    NONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallForm:
    """arguments_are_objects: else JSON in a text. null_content: beside calls, else an empty text."""

    arguments_are_objects: bool
    null_content: bool
    text: TextBesideCalls = TextBesideCalls.TOGETHER


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateForm:
    """What one template takes. calls None: it has no place for tools."""

    contents_are_parts: bool
    system: SystemMessages
    calls: CallForm | None


def find_form(render: Render, *, knows_tools: bool) -> TemplateForm:
    """Raises ChildFailed: the question of a user gets lost in every form, or a limit is hit."""
    contents_are_parts = _contents_are_parts(render)

    def keeps(messages: Sequence[Message], *words: str, tools: Sequence[dict[str, Any]] = ()) -> bool:
        text = _rendered(render, with_contents(messages, parts=contents_are_parts), tools)
        return text is not None and all(word in text for word in words)

    def shown_calls(form: CallForm, *before: Message, text: str = "") -> str | None:
        messages = [_USER, *before, message_with_calls({"role": "assistant", "content": text}, [_CALL], form), _RESULT]
        return _rendered(render, with_contents(messages, parts=contents_are_parts), [_TOOL])

    return TemplateForm(
        contents_are_parts=contents_are_parts,
        system=_system_messages(keeps),
        calls=_call_form(shown_calls) if knows_tools and keeps([_USER], QUESTION, TOOL, tools=[_TOOL]) else None,
    )


def with_contents(messages: Sequence[Message], *, parts: bool) -> list[Message]:
    """Return the messages with contents that are lists of parts, or as they are."""
    return [{**each, "content": _parts(each["content"])} if parts else each for each in messages]


def message_with_calls(message: Message, calls: Sequence[dict[str, Any]], form: CallForm) -> Message:
    """Return a message with these calls; their arguments are objects, or texts that are no JSON."""
    content = message["content"] or (None if form.null_content else "")
    shown = calls if form.arguments_are_objects else [_with_text_arguments(call) for call in calls]
    return {**message, "content": content, "tool_calls": list(shown)}


def _contents_are_parts(render: Render) -> bool:
    """Some templates begin only with a system message, others never: a question kept once is enough."""
    failures: list[ChildFailed] = []
    for parts in (False, True):
        for messages in ([_USER], [_RULE, _USER]):
            try:
                if QUESTION in render(with_contents(messages, parts=parts), ()):
                    return parts
                failures.append(ChildFailed("it loses the text of messages"))
            except ChildLimit:
                raise  # each further try may take as long
            except ChildFailed as error:
                failures.append(error)
    raise failures[0]  # of the most common form


def _system_messages(keeps: Callable[..., bool]) -> SystemMessages:
    if not keeps([_RULE, _USER], RULE, QUESTION):
        return SystemMessages.NONE
    begins_with_two = keeps([_RULE, _SECOND_RULE, _USER], RULE, SECOND_RULE, QUESTION)
    has_one_later = keeps([_RULE, _USER, _ANSWER, _SECOND_RULE, _USER], RULE, SECOND_RULE, ANSWER)
    return SystemMessages.EACH if begins_with_two and has_one_later else SystemMessages.FIRST


def _call_form(shown_calls: Callable[..., str | None]) -> CallForm | None:
    """Return the first form in which a call looks as a model writes it, else the first in which nothing is lost."""
    kept: list[CallForm] = []
    for null_content in (False, True):
        for objects in (True, False):
            form = CallForm(arguments_are_objects=objects, null_content=null_content)
            shown = shown_calls(form)
            if shown is None or not all(word in shown for word in (TOOL, VALUE, RESULT)):
                continue
            if f"'{ARGUMENT}'" not in shown and f'\\"{ARGUMENT}' not in shown:  # Python's repr; JSON within JSON
                return _with_place_for_text(form, shown_calls)
            kept.append(form)
    return _with_place_for_text(kept[0], shown_calls) if kept else None


def _with_place_for_text(form: CallForm, shown_calls: Callable[..., str | None]) -> CallForm:
    together, apart = shown_calls(form, text=ANSWER), shown_calls(form, _ANSWER)
    for text, shown in ((TextBesideCalls.TOGETHER, together), (TextBesideCalls.APART, apart)):
        if shown is not None and all(word in shown for word in (ANSWER, VALUE, RESULT)):
            return replace(form, text=text)
    return replace(form, text=TextBesideCalls.NONE)


def _rendered(render: Render, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str | None:
    try:
        return render(messages, tools)
    except ChildLimit:
        raise
    except ChildFailed:
        return None


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], str):
        return call
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _parts(content: str | None) -> list[dict[str, str]] | None:
    return None if content is None else [{"type": "text", "text": content}] if content else []
