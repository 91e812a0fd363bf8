"""Renders chat templates in Jinja's sandbox: the program of a child process (`child_process`), which may be ended.

A template is a program of a stranger: it may loop, fill the memory, or find a hole in the sandbox. Compiling one is as
dangerous, as Jinja folds constants.

Templates are written for `apply_chat_template` of transformers, whose environment this one equals: blocks trimmed,
`break` and `continue`, `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML.
"""

import json
import traceback
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workers.engines.shared.child_program import Limits, Message, Rejected, serve

LIMITS = Limits(
    cpu_seconds=2.0,  # 4096 messages through a template of a real model take 0.1 s
    memory_bytes=512 * 1024 * 1024,  # the process itself needs 25 MB, and a conversation of 4 MB 30 MB more
    wait_seconds=8.0,  # a client of the tokenizer service waits 10 s
)
_REASON_CHARACTERS = 200
_TEMPLATE = "<template>"  # how tracebacks name the file of a template that is none


class TemplateRenderer:
    """First message: `sources`, to which the names that each template expects are replied. Then texts, one for each
    message. In a trial (`is_trial`) there is no text of a client, so that an error's own text may be shown.
    """

    def __init__(self) -> None:
        self._environment = _environment()
        self._templates: list[jinja2.Template] = []

    def handle(self, message: Message) -> Message:
        try:
            if "sources" not in message:
                return {"text": self._templates[message["template"]].render(message["variables"])}
            compiled = [_compiled(self._environment, source) for source in message["sources"]]
        except jinja2.TemplateSyntaxError as error:
            raise Rejected(f"line {error.lineno}: {error.message}") from None
        except _Rejection as error:
            raise Rejected(_line(str(error))) from None
        except MemoryError:
            raise
        except Exception as error:
            raise Rejected(_cause(error, tells_text=bool(message.get("is_trial", "sources" in message)))) from None
        self._templates = [template for template, _ in compiled]
        return {"variables": [names for _, names in compiled]}


def _compiled(environment: ImmutableSandboxedEnvironment, source: str) -> tuple[jinja2.Template, list[str]]:
    """Return the template, and the names that it expects to be given."""
    names = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source), sorted(names)


def _cause(error: Exception, *, tells_text: bool) -> str:
    """Return the kind of an error and the line of the template where it came up. Its text may quote a message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _TEMPLATE]
    place = f"line {lines[-1]}: " if lines else ""
    return _line(f"{place}{type(error).__name__}{f': {error}' if tells_text else ''}")


def _line(text: str) -> str:
    return " ".join(text.split())[:_REASON_CHARACTERS]


class _Rejection(jinja2.TemplateError):
    """`raise_exception(...)` of a template."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; it has no effect on the text."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


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


if __name__ == "__main__":
    serve(TemplateRenderer().handle)
