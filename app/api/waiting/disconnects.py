"""Detects closed connections of requests that wait for a whole response, for all of the process in one thread.

gunicorn's threads look at a client's socket only when they write to it; a `/generate` that waits a minute writes
nothing for a minute. Linux's epoll reports a closed connection at once. Where there is no epoll (macOS), it is noticed
when the response is sent.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator


class Disconnects:
    """Watches sockets that the server owns: it peeks, it never reads."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._watched: dict[int, tuple[socket.socket, Callable[[], None]]] = {}

    @contextlib.contextmanager
    def watching(self, client: socket.socket | None, on_gone: Callable[[], None]) -> Iterator[None]:
        """Call `on_gone` (from the watching thread, at most once) if the client closes its end inside this block."""
        if client is None or self._epoll is None:
            yield
            return
        descriptor = client.fileno()
        self._watched[descriptor] = (client, on_gone)
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
        try:
            yield
        finally:
            self._watched.pop(descriptor, None)
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def start(self) -> None:
        """Call it once, after any fork."""
        if self._epoll is not None:
            threading.Thread(target=self._run, name="disconnects", daemon=True).start()

    def _run(self) -> None:
        assert self._epoll is not None
        while True:
            for descriptor, _ in self._epoll.poll():
                watched = self._watched.get(descriptor)
                if watched is not None and _is_closed(watched[0]):
                    watched[1]()


def _is_closed(client: socket.socket) -> bool:
    """True at the end of the stream; bytes that wait to be read are the client's next request."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
