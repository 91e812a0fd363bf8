"""gunicorn's threaded worker, whose threads stay with a client for a moment after they have answered it.

gthread gives every kept-alive connection back to the main thread's poller and takes it from there for the next request:
two hand-overs between threads for each. A client that asks again at once is answered by the thread that still has it.
Figures: docs/decisions/0009.
"""

import select
import socket
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

LINGER_MILLISECONDS = 5


class LingeringThreadWorker(ThreadWorker):  # type: ignore[misc]
    def handle(self, conn: Any) -> Any:
        """As gthread's, for as many requests as follow each other closely. True: the connection is kept alive."""
        result = super().handle(conn)
        while result is True and self._may_linger(conn) and _is_readable(conn.sock):
            result = super().handle(conn)
        return result

    def _may_linger(self, conn: Any) -> bool:
        """Not while others wait for a thread or the process is stopping; nor where the next request has been read
        already, or lies in TLS's own buffer, and does not make the socket readable.
        """
        waits = not self.tpool._work_queue.empty()
        return self.alive and not waits and not self.cfg.is_ssl and not conn.parser.unreader.buf.getvalue()


def _is_readable(client: socket.socket) -> bool:
    poller = select.poll()
    poller.register(client, select.POLLIN)
    return bool(poller.poll(LINGER_MILLISECONDS))
