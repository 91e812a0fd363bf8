"""Processes that render chat templates: each can be ended when a template takes too much time or memory.

They are kept, so that a chat costs one exchange of messages and no start of a process. One is enough until two chats
are rendered at once.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from workers.engines.shared import template_renderer
from workers.engines.shared.template_renderer import CPU_SECONDS, LENGTH_BYTES, MAX_TEXT_BYTES, MEMORY_BYTES

WAIT_SECONDS = 8.0  # the limit of CPU time ends a process before, unless the machine is busy; a client waits 10 s
MAX_PROCESSES = 4  # as many as prepare jobs at once
PATIENCE_SECONDS = 0.05  # to wait for another render to end before another process is started, which takes 0.2 s
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")  # no keys or passwords


class TemplateFailed(Exception):
    """The template rejects what it was given, or fails at it; the text may be shown."""


class TemplateLimit(TemplateFailed):
    """It takes more time or memory than is allowed."""


class RenderProcess:
    """One process. One thread at a time may use it.

    variables: of each template, the names that it expects to be given. Raises TemplateFailed: one cannot be compiled.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", template_renderer.__file__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl+C is for the worker, which ends it
            )
        self._channel = ours
        try:
            self.variables: list[list[str]] = self._call({"sources": list(sources)})["variables"]
        except BaseException:
            self.close()
            raise

    def render(self, template: int, variables: Mapping[str, Any]) -> str:
        """Raises TemplateFailed. After TemplateLimit the process has ended."""
        text: str = self._call({"template": template, "variables": dict(variables)})["text"]
        return text

    def close(self) -> None:
        """End the process, whatever it does."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            data = json.dumps(message).encode()
        except RecursionError:
            raise TemplateFailed("a value is nested too deeply") from None
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            self._send(data, deadline)
            size = int.from_bytes(self._receive(LENGTH_BYTES, deadline), "big")
            if size > MAX_TEXT_BYTES:  # only a template that has left its sandbox sends it
                raise TemplateLimit(_memory_limit())
            reply: dict[str, Any] = json.loads(self._receive(size, deadline))
        except TemplateLimit:
            self.close()
            raise
        if reply.get("memory"):
            self.close()
            raise TemplateLimit(_memory_limit())
        if "failed" in reply:
            raise TemplateFailed(str(reply["failed"]))
        return reply

    def _send(self, data: bytes, deadline: float) -> None:
        self._set_time_left(deadline)
        try:
            self._channel.sendall(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        except OSError as error:
            raise self._limit(error) from None

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._set_time_left(deadline)
            try:
                part = self._channel.recv(min(size - len(data), 1 << 20))
            except OSError as error:
                raise self._limit(error) from None
            if not part:
                raise self._limit(None)
            data += part
        return bytes(data)

    def _set_time_left(self, deadline: float) -> None:
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))

    def _limit(self, error: OSError | None) -> TemplateLimit:
        """Return why the process has ended, or must end."""
        if isinstance(error, TimeoutError):
            return TemplateLimit(f"it took longer than {WAIT_SECONDS:g} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.wait(timeout=1) == -signal.SIGPROF:
                return TemplateLimit(f"it took more than {CPU_SECONDS:g} s of a CPU")
        return TemplateLimit(_memory_limit())


class RenderProcesses:
    """Renders these templates. Any thread may use it.

    variables: of each template, the names that it expects to be given. Raises TemplateFailed: one of them cannot be
    compiled.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = list(sources)
        self._idle: queue.LifoQueue[RenderProcess] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._count = 1  # idle, busy and starting ones
        self._all: set[RenderProcess] = set()
        self._finalizer = weakref.finalize(self, _close_all, self._all)
        first = self._started()
        self.variables = [frozenset(names) for names in first.variables]
        self._idle.put(first)

    def render(self, template: int, variables: Mapping[str, Any]) -> str:
        """Raises TemplateFailed."""
        process = self._taken()
        try:
            return process.render(template, variables)
        except TemplateLimit:
            self._all.discard(process)
            process = self._started()  # here, so that the next chat need not wait for it
            raise
        finally:
            self._idle.put(process)

    def close(self) -> None:
        self._finalizer()

    def _taken(self) -> RenderProcess:
        with contextlib.suppress(queue.Empty):
            return self._idle.get(timeout=PATIENCE_SECONDS)
        with self._lock:
            may_start = self._count < MAX_PROCESSES
            self._count += may_start
        return self._started() if may_start else self._idle.get()

    def _started(self) -> RenderProcess:
        process = RenderProcess(self._sources)
        self._all.add(process)
        return process


def _close_all(processes: set[RenderProcess]) -> None:
    for process in list(processes):
        process.close()


def _memory_limit() -> str:
    return f"it needs more than {MEMORY_BYTES // 1024**2} MB of memory"
