"""From a conversation to a prompt: the model's own chat template, in the form of messages that it expects.

Templates are rendered in processes that can be ended (`child_process`), never in this one (docs/decisions/0039).
"""

import json
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from app.errors import ConfigError, InvalidRequest, UnsupportedParameter
from app.jobs.job import Chat
from workers.engines.shared.child_process import ChildFailed, ChildLimit, ChildProcesses
from workers.engines.shared.configured_template import KEY, RENDERER
from workers.engines.shared.named_templates import CHATML, template_with
from workers.engines.shared.template_forms import (
    CallForm,
    Message,
    SystemMessages,
    TextBesideCalls,
    find_form,
    message_with_calls,
    with_contents,
)
from workers.engines.shared.template_renderer import LIMITS
from workers.engines.shared.tool_prompt import with_tool_prompt

RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})  # a request's variables cannot set them
THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"

logger = logging.getLogger(__name__)


class ChatTemplate:
    """Any thread may use it.

    Args:
        source: the template; None: ChatML.
        tool_source: the one for conversations with tools, where a model has two.
        special_tokens: what templates call `bos_token`, `eos_token`, ...
        is_configured: it is the operator's, not the model's.

    A template that cannot be used is logged by `check`, and every call of `render` raises.
    """

    def __init__(
        self,
        source: str | None,
        *,
        tool_source: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
        is_configured: bool = False,
    ) -> None:
        source = CHATML.source if source is None else source
        self._sources = [source, *([] if tool_source is None else [tool_source])]
        self._named = template_with(source)
        self._special_tokens = dict(special_tokens or {})
        self._is_configured = is_configured
        self._lock = threading.Lock()

    @property
    def end(self) -> str | None:
        """The text that ends each message, where that may be no end token of the model."""
        return self._named.end if self._named else None

    def check(self) -> None:
        """Try the template. A model's own that cannot be used is logged: the model may still continue plain prompts.
        So is the format of a model without a template.

        Raises:
            ConfigError: the operator's cannot be used.
        """
        fault = self._tried.fault
        if fault and self._is_configured:
            raise ConfigError(f"{KEY} cannot be used: {fault}")
        if fault:
            logger.warning("this model's chat template cannot be used (%s): chats are rejected, set %s", fault, KEY)
        if self._named and not self._is_configured:
            logger.info(
                "this model has no chat template: chats are written as %s; %s sets another", self._named.name, KEY
            )

    def render(self, chat: Chat) -> str:
        """Return the prompt, up to where the assistant's text begins or continues.

        Raises:
            InvalidRequest: the template rejects these messages, or fails at them; names `messages`.
            UnsupportedParameter: the template itself cannot be used.
        """
        tried = self._tried
        if tried.processes is None:
            reason = f"this model's chat template cannot be used ({tried.fault}): set {KEY}"
            raise UnsupportedParameter(reason, errors={"messages": [reason]})
        index = len(tried.templates) - 1 if chat.tools else 0
        try:
            return tried.templates[index].prompt(chat)
        except ChildLimit as error:
            reason = f"{error}; shorten them, or set {KEY}"
            raise _rejection("the model's chat template cannot render these messages", reason) from None
        except (ChildFailed, RecursionError) as error:
            reason = "a value is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise _rejection("the model's chat template does not take these messages", reason) from None

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            if "_tried_once" in self.__dict__ and self._tried_once.processes is not None:
                self._tried_once.processes.close()

    @property
    def _tried(self) -> "_TriedTemplates":
        with self._lock:
            return self._tried_once

    @cached_property
    def _tried_once(self) -> "_TriedTemplates":
        return _TriedTemplates(self._sources, self._special_tokens)


def opens_thoughts(prompt: str, chat: Chat) -> bool:
    """Return whether the model's text begins within thoughts: the template, or the message to continue, has begun
    them.
    """
    if prompt.rstrip().endswith(THOUGHTS_BEGIN):
        return True
    content = chat.messages[-1].get("content") or ""
    _, begin, after = content.rpartition(THOUGHTS_BEGIN)
    continues = chat.messages[-1]["role"] == "assistant" and prompt.endswith(content)
    return continues and bool(begin) and THOUGHTS_END not in after


class _TriedTemplates:
    """fault: why they cannot be used; `processes` is None then."""

    def __init__(self, sources: Sequence[str], special_tokens: Mapping[str, str]) -> None:
        self.fault = ""
        self.templates: list[_Template] = []
        self.processes: ChildProcesses | None = None
        try:
            self.processes = ChildProcesses(RENDERER, LIMITS, {"sources": list(sources)})
            for index, source in enumerate(sources):
                self.templates.append(_Template(self.processes, index, source, special_tokens))
        except ChildFailed as error:
            self.fault = str(error)
            if self.processes is not None:
                self.processes.close()
                self.processes = None


class _Template:
    """One template, and what it expects. Raises ChildFailed: it takes no form of messages."""

    def __init__(self, processes: ChildProcesses, index: int, source: str, special_tokens: Mapping[str, str]) -> None:
        self._processes = processes
        self._index = index
        self._special_tokens = special_tokens
        self._knows_developer = "developer" in source
        self._form = find_form(
            lambda messages, tools: self._rendered(messages, tools, {}, opens_answer=True, is_trial=True),
            knows_tools="tools" in processes.setup_reply["variables"][index],
        )

    def prompt(self, chat: Chat) -> str:
        """Raises ChildFailed."""
        if _may_be_continued(chat):
            try:
                return self._continued(chat)
            except ChildFailed:
                if _must_be_continued(chat):
                    raise
        opens_answer = chat.add_generation_prompt is not False
        return self._rendered(self._messages(chat), chat.tools, chat.variables, opens_answer=opens_answer)

    def _continued(self, chat: Chat) -> str:
        """Return the prompt up to the end of the last message's text, where a mark shows that it ends."""
        if chat.messages[-1].get("tool_calls"):
            raise ChildFailed("the last message calls tools, so that it has no end to continue")
        mark = f"zq{secrets.token_hex(8)}"
        text = self._rendered(self._messages(chat, mark), chat.tools, chat.variables, opens_answer=False)
        before, found, _ = text.rpartition(mark)
        if not found:
            raise ChildFailed("it does not show the last message, so that it cannot be continued")
        return before

    def _messages(self, chat: Chat, mark: str = "") -> list[Message]:
        """Return the messages in the template's form; mark: to put behind the last one's text."""
        form = self._form
        messages = [_plain(message, knows_developer=self._knows_developer) for message in chat.messages]
        if mark:
            messages[-1]["content"] += mark
        if form.calls is None:
            messages = with_tool_prompt(messages, chat.tools)
        else:
            messages = [part for message in messages for part in _with_calls(message, form.calls)]
        return with_contents(_with_system(messages, form.system), parts=form.contents_are_parts)

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        variables: Mapping[str, Any],
        *,
        opens_answer: bool,
        is_trial: bool = False,
    ) -> str:
        given = {
            **self._special_tokens,
            **{name: value for name, value in variables.items() if name not in RESERVED},
            "messages": list(messages),
            "tools": list(tools) or None,
            "add_generation_prompt": opens_answer,
        }
        return str(self._processes.call({"template": self._index, "variables": given, "is_trial": is_trial})["text"])


def _plain(message: Message, *, knows_developer: bool) -> Message:
    """Return a message with a text as its content, and with arguments as objects, where they are JSON."""
    plain = {**message, "content": message.get("content") or ""}
    plain.pop("prefix", None)
    if message["role"] == "developer" and not knows_developer:
        plain["role"] = "system"
    if message.get("tool_calls"):
        plain["tool_calls"] = [_with_object(call) for call in message["tool_calls"]]
    return plain


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call  # a model wrote them; the template shows them as they are
    return {**call, "function": {**function, "arguments": arguments}}


def _with_calls(message: Message, form: CallForm) -> list[Message]:
    calls = message.get("tool_calls")
    if not calls:
        return [message]
    if not message["content"] or form.text is TextBesideCalls.TOGETHER:
        return [message_with_calls(message, calls, form)]
    alone = message_with_calls({**message, "content": ""}, calls, form)
    if form.text is TextBesideCalls.NONE:
        return [alone]
    return [{name: value for name, value in message.items() if name != "tool_calls"}, alone]


def _with_system(messages: list[Message], place: SystemMessages) -> list[Message]:
    """Return the messages with the system's texts where the template takes them."""
    texts = [message["content"] for message in messages if message["role"] == "system"]
    if place is SystemMessages.EACH or not texts:
        return messages
    others = [message for message in messages if message["role"] != "system"]
    if place is SystemMessages.FIRST:
        return [{"role": "system", "content": "\n\n".join(texts)}, *others]
    first = next((index for index, message in enumerate(others) if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": "\n\n".join(texts)}, *others]
    question = others[first]
    others[first] = {**question, "content": "\n\n".join([*texts, question["content"]])}
    return others


def _may_be_continued(chat: Chat) -> bool:
    """The client wants it, or leaves it to the server and the last message is a text of the assistant."""
    if not chat.messages:
        return False
    last = chat.messages[-1]
    is_open = chat.continues is None and chat.add_generation_prompt is None
    return _must_be_continued(chat) or (is_open and last["role"] == "assistant" and not last.get("tool_calls"))


def _must_be_continued(chat: Chat) -> bool:
    return bool(chat.continues) or (chat.continues is None and bool(chat.messages[-1].get("prefix")))


def _rejection(what: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{what}: {reason}", errors={"messages": [reason]})
