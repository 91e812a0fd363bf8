"""Long bodies, each read by a thread while it arrives: how many at once, and when the thread has read it all."""

import io
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from app.errors import RequestTimeout

PIECE_BYTES = 1 << 20  # as much as gunicorn receives at once


def upload_threads(threads: int) -> int:
    """Return how many threads a process has for long bodies, beside `server.threads`."""
    return max(2, threads // 8)


class UploadSlots:
    """The threads that may read long bodies at once, at most half of them for one address."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._taken: dict[Any, str] = {}

    def take(self, connection: Any, address: str) -> bool:
        """Return False if all slots, or all that the address may have, are taken."""
        taken = Counter(self._taken.values())
        if len(self._taken) >= self._slots or taken[address] >= self._most_per_address():
            return False
        self._taken[connection] = address
        return True

    def give_back(self, connection: Any) -> bool:
        """Return whether the connection had one."""
        return self._taken.pop(connection, None) is not None

    def in_the_way_of(self, address: str) -> list[Any]:
        """Return the connections that have the slots which this address could have, the oldest first."""
        own = [connection for connection, other in self._taken.items() if other == address]
        return own if len(own) >= self._most_per_address() else list(self._taken)

    def _most_per_address(self) -> int:
        return max(1, self._slots // 2)

    def __contains__(self, connection: object) -> bool:
        return connection in self._taken


class LateSocket(Protocol):
    is_late: bool


class UploadedBody(io.BufferedReader):
    """The body of a request, in place of gunicorn's. It calls `on_end` once, when all has arrived.

    A body of known length is read ahead in large pieces: gunicorn copies what it has left of a megabyte for each small
    one. Of another body the application reads no more than its limit. Reading raises RequestTimeout if the client was
    too slow; then the body ends. is_answered: what is still read is not for the application, and raises what the socket
    raises.
    """

    def __init__(self, body: Any, length: int | None, client: LateSocket, on_end: Callable[[], None]) -> None:
        self._arriving = _ArrivingBody(body, length, client, on_end)
        super().__init__(self._arriving, io.DEFAULT_BUFFER_SIZE if length is None else PIECE_BYTES)

    @property
    def is_answered(self) -> bool:
        return self._arriving.is_answered

    @is_answered.setter
    def is_answered(self, value: bool) -> None:
        self._arriving.is_answered = value

    @property
    def failed(self) -> bool:
        """gunicorn closes the connection then."""
        return self._arriving.failed


class _ArrivingBody(io.RawIOBase):
    def __init__(self, body: Any, length: int | None, client: LateSocket, on_end: Callable[[], None]) -> None:
        self._body = body
        self._left = length
        self._client = client
        self._on_end: Callable[[], None] | None = on_end
        self.is_answered = False
        self.failed = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        if self.failed:
            return b""
        try:
            data: bytes = self._body.read(size)
        except Exception:
            self.failed = True
            self._end()
            if self._client.is_late and not self.is_answered:
                detail = "the body arrived too slowly, and was not read to its end; send it again, faster"
                raise RequestTimeout(detail) from None
            raise
        if self._left is not None:
            self._left -= len(data)
        if not data or self._left == 0:
            self._end()
        return data

    def _end(self) -> None:
        if self._on_end is not None:
            self._on_end()
            self._on_end = None
