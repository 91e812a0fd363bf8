"""From a conversation to a prompt: the model's own chat template, rendered in Jinja's sandbox.

Templates are written for `apply_chat_template` of transformers, whose environment this one equals: blocks trimmed,
`break` and `continue`, `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import ConfigError, InvalidRequest, UnsupportedParameter
from app.jobs.job import Chat
from workers.engines.shared.tool_prompt import with_tool_prompt

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
"""For a model without a template of its own."""

RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})  # a request's variables cannot set them
_REASON_CHARACTERS = 200

logger = logging.getLogger(__name__)


class ChatTemplate:
    """Any thread may use it.

    Args:
        source: the template; None: `CHATML`.
        tool_source: the one for conversations with tools, where a model has two.
        special_tokens: what templates call `bos_token`, `eos_token`, ...

    A template that Jinja cannot read is logged, and every call of `render` raises.
    """

    def __init__(
        self, source: str | None, *, tool_source: str | None = None, special_tokens: Mapping[str, str] | None = None
    ) -> None:
        self._special_tokens = dict(special_tokens or {})
        self._fault = ""
        try:
            self._plain = _Compiled(CHATML if source is None else source)
            self._with_tools = self._plain if tool_source is None else _Compiled(tool_source)
        except jinja2.TemplateSyntaxError as error:
            self._fault = f"line {error.lineno}: {error.message}"
            logger.warning("this model's chat template cannot be read (%s): chats are rejected", self._fault)

    def render(self, chat: Chat) -> str:
        """Return the prompt, up to where the assistant's message begins.

        Raises:
            InvalidRequest: the template rejects these messages, or fails at them; names `messages`.
            UnsupportedParameter: the template itself cannot be read.
        """
        if self._fault:
            reason = f"this model's chat template cannot be read ({self._fault}): set model_params.chat_template"
            raise UnsupportedParameter(reason, errors={"messages": [reason]})
        compiled = self._with_tools if chat.tools else self._plain
        try:
            messages = [_prepared(message, compiled.knows_developer) for message in chat.messages]
            if not compiled.knows_tools:
                messages = with_tool_prompt(messages, chat.tools)
            return compiled.template.render(
                **self._special_tokens,
                **{name: value for name, value in chat.variables.items() if name not in RESERVED},
                messages=messages,
                tools=chat.tools or None,
                add_generation_prompt=True,
            )
        except Exception as error:  # a template is a program: it fails in its own ways
            reason = _reason(error)
            raise InvalidRequest(
                f"the model's chat template does not take these messages: {reason}", errors={"messages": [reason]}
            ) from error


def configured_template(value: str) -> str:
    """Return the template of `model_params.chat_template`, which holds it or the path of its file.

    Raises:
        ConfigError: the file cannot be read, or holds no template.
    """
    key = "model_params.chat_template"
    if "{" not in value:
        try:
            value = Path(value).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{key}: {value} cannot be read: give the path of a file, or the template itself"
            ) from error
    try:
        _Compiled(value)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{key} is no Jinja template, line {error.lineno}: {error.message}") from error
    return value


class _Compiled:
    """Raises `jinja2.TemplateSyntaxError`."""

    def __init__(self, source: str) -> None:
        self.template = _ENVIRONMENT.from_string(source)
        self.knows_tools = "tools" in meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        self.knows_developer = "developer" in source


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; it has no effect on the text."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _prepared(message: dict[str, Any], knows_developer: bool) -> dict[str, Any]:
    """As templates expect a message: a text for its content, and arguments as an object, not as JSON in a text."""
    prepared = {**message, "content": message.get("content") or ""}
    if message["role"] == "developer" and not knows_developer:
        prepared["role"] = "system"
    if message.get("tool_calls"):
        prepared["tool_calls"] = [_prepared_call(call) for call in message["tool_calls"]]
    return prepared


def _prepared_call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call  # a model wrote them, and nests as deep as it likes; the template shows them as they are
    return {**call, "function": {**function, "arguments": arguments}}


def _reason(error: Exception) -> str:
    """Return the message of `raise_exception`, else the kind of the failure: its text may contain the prompt."""
    message = str(error) if isinstance(error, _Rejection) else type(error).__name__
    return " ".join(message.split())[:_REASON_CHARACTERS]


class _Rejection(jinja2.TemplateError):
    """`raise_exception(...)` of a template."""


def _raise_exception(message: str) -> NoReturn:
    raise _Rejection(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


_ENVIRONMENT = _environment()
