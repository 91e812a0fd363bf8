"""A client's socket with a deadline for what is read from it, and an end for what the client does not read."""

import errno
import math
import select
import socket
import time
from typing import Any, Self

STALLED_SEND_SECONDS = 60  # after which a client that takes nothing more of its response is cut off
LEAST_BYTES_PER_SECOND = 16 * 1024  # each piece that arrives moves the deadline by what it may take at this rate
PATIENCE_SECONDS = 2.0  # before a client below that rate may be cut for one that waits
LOOK_SECONDS = 0.5  # at the deadline, while nothing arrives
_DRAIN_READS, _DRAIN_BYTES = 16, 4096


class ArrivingSocket(socket.socket):
    """Reads like a reset connection once the deadline has passed, however little is sent how often.

    is_late: whether a read has met the deadline.
    """

    is_late = False
    _began = _deadline = 0.0  # by `time.monotonic`
    _received = 0

    @classmethod
    def take(cls, client: socket.socket) -> Self:
        """Take over an accepted socket."""
        taken = cls(client.family, client.type, client.proto, client.detach())
        if taken.family != socket.AF_UNIX:
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SEND_SECONDS * 1000)
        return taken

    def allow(self, seconds: float) -> None:
        """Let the client send for so long from now on, and longer what arrives at `LEAST_BYTES_PER_SECOND`."""
        self._began = time.monotonic()
        self._deadline, self._received = self._began + seconds, 0

    def cut_if_slow(self) -> bool:
        """Move the deadline to this moment if the client is slow. Return whether it is."""
        seconds = time.monotonic() - self._began
        is_slow = seconds > PATIENCE_SECONDS and self._received < seconds * LEAST_BYTES_PER_SECOND
        if is_slow:
            self._deadline = 0.0
        return is_slow

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags:
            return super().recv(size, flags)
        while True:
            try:
                data = super().recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait()
            else:
                self._received += len(data)
                self._deadline += len(data) / LEAST_BYTES_PER_SECOND
                return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            super().sendall(data, flags)
        except TimeoutError:  # of the kernel, after STALLED_SEND_SECONDS: for gunicorn a client that has left
            raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing more of its response") from None

    def _wait(self) -> None:
        """Wait for data. Raises ConnectionResetError at the deadline, TimeoutError at the socket's own time-out."""
        timeout = self.gettimeout()
        end = math.inf if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self, select.POLLIN)
        while (now := time.monotonic()) < self._deadline:  # another thread may move it
            if now >= end:
                raise TimeoutError
            if poller.poll(min(LOOK_SECONDS, end - now, self._deadline - now) * 1000):
                return
        self.is_late = True
        raise ConnectionResetError(errno.ECONNRESET, "the client sends too slowly")


def is_readable(client: socket.socket, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(client, select.POLLIN)
    return bool(poller.poll(milliseconds))


def drain(client: socket.socket) -> bool:
    """Read what the client still sends. Return whether it may send more."""
    for _ in range(_DRAIN_READS):
        try:
            if not client.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
