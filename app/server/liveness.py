"""Liveness on a listener of its own: whether the process' main loop turns, however many clients the API has."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable

REQUEST_SECONDS = 0.2  # for the first bytes of a request; what it asks for does not matter
_ALIVE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
_STALLED = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def start(listener: socket.socket, is_alive: Callable[[], bool]) -> None:
    """Answer every request to this listener, in a thread, one after the other."""
    if hasattr(socket, "TCP_DEFER_ACCEPT"):  # a client that sends nothing does not get as far as to this thread
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    threading.Thread(target=_run, args=(listener, is_alive), name="liveness", daemon=True).start()


def _run(listener: socket.socket, is_alive: Callable[[], bool]) -> None:
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        poller.poll()  # all processes share the listener, which does not block
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(REQUEST_SECONDS)
                client.recv(4096)
                client.sendall(_ALIVE if is_alive() else _STALLED)
