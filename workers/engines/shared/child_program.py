"""The part of a child process that all programs for `workers.engines.shared.child_process` share: limits and messages.

Messages are JSON behind 4 bytes of length, through a socket, the standard input of the child. Only the standard library
is imported here: what the child runs may be a stranger's program.
"""

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

LENGTH_BYTES = 4
MAX_REPLY_BYTES = 64 * 1024 * 1024  # the other side must be able to hold it

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """cpu_seconds: of one message. memory_bytes: of the data of the process. wait_seconds: of one message, in the
    parent, for a machine that is busy or stopped. niceness: of the thread that works, beyond its parent's.
    """

    cpu_seconds: float
    memory_bytes: int
    wait_seconds: float
    niceness: int = 0

    def to_argument(self) -> str:
        return json.dumps(asdict(self))


class Rejected(Exception):
    """What a program does not take; the text may be shown."""


def serve(handle: Callable[[Message], Message]) -> None:
    """Reply to each message until the parent closes the socket; ends the process.

    An exception of `handle` is replied to by its kind, as the text of Python's own may contain the message.
    """
    limits = Limits(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(limits.niceness)  # of this thread, on Linux
    channel = socket.socket(fileno=sys.stdin.fileno())
    while (received := _receive(channel)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)  # SIGPROF ends the process
        try:
            reply = json.dumps(handle(json.loads(received))).encode()
            if len(reply) > MAX_REPLY_BYTES:
                raise MemoryError
        except Exception as error:
            reply = json.dumps(_failure(error)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.sendall(len(reply).to_bytes(LENGTH_BYTES, "big") + reply)
    os._exit(0)


def _receive(channel: socket.socket) -> bytes | None:
    header = _read(channel, LENGTH_BYTES)
    return None if header is None else _read(channel, int.from_bytes(header, "big"))


def _read(channel: socket.socket, size: int) -> bytes | None:
    data = channel.recv(size, socket.MSG_WAITALL)
    return data if len(data) == size else None


def _failure(error: Exception) -> Message:
    if isinstance(error, MemoryError):
        return {"out_of_memory": True}
    return {"failed": str(error) if isinstance(error, Rejected) else type(error).__name__}
