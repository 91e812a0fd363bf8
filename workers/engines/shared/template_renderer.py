"""Renders chat templates in Jinja's sandbox: the program of a process that may be ended at any time.

`workers.engines.shared.template_process` starts it and talks to it through a socket, its standard input, in JSON:
4 bytes of length, then the message. It imports nothing of this project. A template is a program of a stranger: it may
loop, fill the memory, or find a hole in the sandbox. Compiling one is as dangerous, as Jinja folds constants.

Templates are written for `apply_chat_template` of transformers, whose environment this one equals: blocks trimmed,
`break` and `continue`, `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML.
"""

import json
import os
import resource
import signal
import socket
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 2.0  # of one message; 4096 messages through a template of a real model take 0.1 s
MEMORY_BYTES = (
    512 * 1024 * 1024
)  # of address space; the process itself needs 25 MB, and a conversation of 4 MB 30 MB more
MAX_TEXT_BYTES = 64 * 1024 * 1024  # the other side must be able to hold it
LENGTH_BYTES = 4
_REASON_CHARACTERS = 200

Message = dict[str, Any]


def main() -> None:
    """Serve until the other side closes the socket: first its templates, then one text for each message."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = socket.socket(fileno=sys.stdin.fileno())
    environment = _environment()
    templates: list[jinja2.Template] = []
    while (received := _receive(channel)) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
        try:
            message = json.loads(received)
            if "sources" in message:
                compiled = [_compiled(environment, source) for source in message["sources"]]
                templates = [template for template, _ in compiled]
                reply: Message = {"variables": [variables for _, variables in compiled]}
            else:
                reply = {"text": templates[message["template"]].render(message["variables"])}
        except Exception as error:  # a template fails in its own ways
            reply = _failure(error)
        data = json.dumps(reply).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if len(data) > MAX_TEXT_BYTES:
            data = json.dumps(_failure(MemoryError())).encode()
        channel.sendall(len(data).to_bytes(LENGTH_BYTES, "big") + data)


def _receive(channel: socket.socket) -> bytes | None:
    header = _read(channel, LENGTH_BYTES)
    return None if header is None else _read(channel, int.from_bytes(header, "big"))


def _read(channel: socket.socket, size: int) -> bytes | None:
    data = channel.recv(size, socket.MSG_WAITALL)
    return data if len(data) == size else None


def _compiled(environment: ImmutableSandboxedEnvironment, source: str) -> tuple[jinja2.Template, list[str]]:
    """Return the template, and the names that it expects to be given."""
    names = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source), sorted(names)


def _failure(error: Exception) -> Message:
    """Return what may be shown of an error: the text of Python's own messages may contain the conversation."""
    if isinstance(error, MemoryError):
        return {"failed": "MemoryError", "memory": True}
    if isinstance(error, jinja2.TemplateSyntaxError):
        return {"failed": f"line {error.lineno}: {error.message}"}
    if isinstance(error, _Rejection):
        return {"failed": " ".join(str(error).split())[:_REASON_CHARACTERS]}
    return {"failed": type(error).__name__}


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
    main()
    os._exit(0)
