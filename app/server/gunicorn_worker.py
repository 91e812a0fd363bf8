"""gunicorn's threaded worker with two additions: its threads linger with their clients, and it ends in good order.

**Lingering.** gthread returns each kept-alive connection to the main thread's poller and takes it from there for the
next request: two hand-overs between threads for each. Here a client that asks again at once is served by the thread
that served it before. Figures: docs/decisions/0009.

**The end.** After SIGTERM, a reload or the death of its master a worker has `graceful_timeout` seconds for the requests
it is serving; then gunicorn cuts them. The requests that still wait for a job get a response shortly before that, with
the path where the job can be read.
"""

import os
import select
import socket
import threading
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from app.api.request_context import services_of

LINGER_MILLISECONDS = 5
LAST_SECONDS = 4.0  # of the grace, for these responses: gunicorn keeps a connection for 2 s after its last one


class GunicornWorker(ThreadWorker):  # type: ignore[misc]
    alive: bool

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow it closely. Return True if the connection is kept alive."""
        result = super().handle(conn)
        while result is True and not self._lacks_threads() and _is_readable(conn.sock):
            result = super().handle(conn)
        return result

    def set_accept_enabled(self, enabled: bool) -> None:
        """Also the first thing that gunicorn calls when it ends in grace, in its main thread."""
        super().set_accept_enabled(enabled)
        if not enabled and (not self.alive or os.getppid() != self.ppid):
            self.alive = False  # gunicorn leaves it true after the death of its master
            self._close_listeners()
            timer = threading.Timer(self.cfg.graceful_timeout - LAST_SECONDS, self._end_waiting_requests)
            timer.daemon = True  # it does not keep a process that has nothing left to serve
            timer.start()

    def run(self) -> None:
        try:
            super().run()
        finally:  # SIGINT and SIGQUIT end it at once, by SystemExit; its threads may still respond
            self._close_listeners()
            self._end_waiting_requests()

    def _lacks_threads(self) -> bool:
        """Whether a connection waits for a thread. Each has one or waits for one, but those that the poller watches."""
        watched = len(self.keepalived_conns) + len(self.pending_conns)
        return bool(self.nr_conns - watched > self.cfg.threads)

    def _close_listeners(self) -> None:
        """gunicorn leaves them open to its end. Connections would queue there without a response, to be reset."""
        for listener in self.sockets:
            listener.close()

    def _end_waiting_requests(self) -> None:
        services_of(self.wsgi).jobs.waiters.shut_down()


def _is_readable(client: socket.socket) -> bool:
    poller = select.poll()
    poller.register(client, select.POLLIN)
    return bool(poller.poll(LINGER_MILLISECONDS))
