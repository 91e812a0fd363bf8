"""A client's socket with a deadline for what is read from it, and an end for what the client does not read."""

import errno
import select
import socket
import time
from typing import Any, Self

STALLED_SEND_SECONDS = 60  # after which a client that takes nothing more of its response is cut off
LEAST_BYTES_PER_SECOND = 16 * 1024  # each piece that arrives moves the deadline by what it may take at this rate


class ArrivingSocket(socket.socket):
    """Reads like a reset connection once the deadline has passed, however little is sent how often.

    deadline: by `time.monotonic`.
    is_late: whether a read has met the deadline.
    """

    deadline = 0.0
    is_late = False

    @classmethod
    def take(cls, client: socket.socket) -> Self:
        """Take over an accepted socket."""
        taken = cls(client.family, client.type, client.proto, client.detach())
        if taken.family != socket.AF_UNIX:
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SEND_SECONDS * 1000)
        return taken

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags:
            return super().recv(size, flags)
        while True:
            try:
                data = super().recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait()
            else:
                self.deadline += len(data) / LEAST_BYTES_PER_SECOND
                return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            super().sendall(data, flags)
        except TimeoutError:  # of the kernel, after STALLED_SEND_SECONDS: for gunicorn a client that has left
            raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing more of its response") from None

    def _wait(self) -> None:
        """Wait for data. Raises ConnectionResetError at the deadline, TimeoutError at the socket's own time-out."""
        left, timeout = self.deadline - time.monotonic(), self.gettimeout()
        seconds = left if timeout is None else min(left, timeout)
        poller = select.poll()
        poller.register(self, select.POLLIN)
        if poller.poll(max(0.0, seconds) * 1000):
            return
        if seconds < left:
            raise TimeoutError
        self.is_late = True
        raise ConnectionResetError(errno.ECONNRESET, "the client sends too slowly")
