"""gunicorn's threaded worker with four additions: a thread is for a request that has arrived, long bodies have threads
of their own, threads linger with their clients, and the worker ends in good order.

**Arrival.** gthread gives a thread to a connection that has sent nothing yet, and to each body that arrives slowly; it
closes connections in its main thread and waits 2 s for each client. Here a connection waits in `app.server.reception`
until a request has arrived, and after the last response until its client has closed it. Figures: docs/decisions/0042.

**Long bodies.** A body of megabytes costs milliseconds of a CPU for each. A client that sends them without a pause
would take the CPUs from the model, whose threads have a higher niceness than others: the threads for long bodies have
one above it. Figures: docs/decisions/0047.

**Lingering.** gthread returns each kept-alive connection to the main thread's poller and takes it from there for the
next request: two hand-overs between threads for each. Here a client that asks again at once is served by the thread
that served it before. Figures: docs/decisions/0009.

**The end.** After SIGTERM, a reload or the death of its master a worker has `graceful_timeout` seconds for the requests
it is serving; then gunicorn cuts them. The requests that still wait for a job get a response shortly before that, with
the path where the job can be read.
"""

import contextlib
import errno
import math
import os
import selectors
import socket
import ssl
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from app.api.request_context import services_of
from app.errors import RequestError, RequestTimeout
from app.niceness import set_niceness
from app.server import liveness
from app.server.arrival import Arrival, arrival
from app.server.arriving_socket import ArrivingSocket, drain, is_readable
from app.server.reception import Held, Reception, Stage, address_of
from app.server.refusals import error_of, refusal, refusal_instead_of_continue
from app.server.uploads import UploadedBody, UploadSlots, upload_threads

LINGER_MILLISECONDS = 5
LAST_SECONDS = 4.0  # of the grace, for these responses: a connection stays for 2 s after its last one
SPARE_CONNECTIONS = 2048  # of one process, without a thread
STALLED_SECONDS = 10.0  # without a turn of the main loop; gunicorn kills the process after 30 s
CLOSING_SECONDS = 2.0  # for the client to read its last response and to close, RFC 9112 section 9.6
LONG_BODY_NICENESS = 5  # beyond the model's, as tokenizers of long texts
LOOK_SECONDS = 0.5  # between two looks at the held connections
_TOO_SLOW = refusal(RequestTimeout("the request did not arrive in time; send it again, and faster"))


class GunicornWorker(ThreadWorker):  # type: ignore[misc]
    alive: bool
    _look_at = 0.0  # by `time.monotonic`, at the held connections

    def run(self) -> None:
        config = services_of(self.wsgi).config
        server = config.server
        self._seconds = {
            Stage.IDLE: self.cfg.keepalive,
            Stage.HEAD: server.header_seconds,
            Stage.BODY: server.body_seconds,
            Stage.UPLOAD: server.body_seconds,
            Stage.CLOSING: CLOSING_SECONDS,
        }
        self._is_encrypted = bool(self.cfg.is_ssl)
        self._reception = Reception(SPARE_CONNECTIONS, server.connections_per_address)
        self._uploads = UploadSlots(upload_threads(self.cfg.threads))
        nice = min(19, config.worker.nice + LONG_BODY_NICENESS)
        self._upload_pool = ThreadPoolExecutor(  # a thread stays with its request while that waits for its job
            self._most_threads(), "long-body", initializer=set_niceness, initargs=(nice,)
        )
        self.poller.register(self._reception, selectors.EVENT_READ, self._on_events)
        if server.health_port is not None:
            liveness.start(self.sockets.pop(), lambda: time.monotonic() - self._turned_at < STALLED_SECONDS)
        try:
            super().run()
        finally:  # SIGINT and SIGQUIT end it at once, by SystemExit; its threads may still respond
            self._close_listeners()
            self._end_waiting_requests()

    def notify(self) -> None:
        """gunicorn calls this in every turn of the main loop."""
        self._turned_at = time.monotonic()
        super().notify()

    def accept(self, listener: Any) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if held := self._reception.longest_held():
                self._drop(held)  # the client waits until there is a descriptor

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread if a request has arrived; else hold it until one has."""
        if not conn.initialized and not isinstance(conn.sock, ArrivingSocket):
            conn.sock = ArrivingSocket.take(conn.sock)
        self._receive(conn, None)

    def finish_request(self, conn: Any, fs: "Future[bool]") -> None:
        """Hold a connection whose thread is done with it: for its next request, or until the client has closed it."""
        self._end_upload(conn)
        if not fs.cancelled() and fs.exception() is None and fs.result():
            self.enqueue_req(conn)
        else:
            self._begin_closing(conn)

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow it closely. Return True if the connection is kept alive."""
        result = super().handle(conn)
        while result is True and not self._lacks_threads() and is_readable(conn.sock, LINGER_MILLISECONDS):
            if self._arrival(conn) is not Arrival.WHOLE:
                break
            self._allow(conn, Stage.HEAD)
            result = super().handle(conn)
        return result

    def handle_request(self, req: Any, conn: Any) -> Any:
        if self._reception.is_full_for(address_of(conn)):
            req.force_close()  # its response says so
        if conn not in self._uploads:
            return super().handle_request(req, conn)
        lengths = [int(value) for name, value in req.headers if name == "CONTENT-LENGTH"]
        length = lengths[0] if lengths else None
        if refused := refusal_instead_of_continue(req, length, services_of(self.wsgi).config):
            util.write_nonblock(conn.sock, refused)
            return False
        req.body = UploadedBody(req.body, length, conn.sock, lambda: self.method_queue.defer(self._end_upload, conn))
        try:
            return super().handle_request(req, conn)
        finally:
            req.body.is_answered = True

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is no request. gunicorn does so as HTML, which shows what was sent."""
        if isinstance(exc, ssl.SSLError):
            super().handle_error(req, client, addr, exc)
            return
        error = error_of(exc)
        if not isinstance(error, RequestError):
            self.log.exception("a request failed")
        with contextlib.suppress(OSError):
            util.write_nonblock(client, refusal(error))

    def murder_keepalived(self, force: bool = False) -> None:
        """Close the held connections whose time is over. gunicorn calls this in every turn of its main loop."""
        now = time.monotonic()
        if now < self._look_at and not force:
            return
        self._look_at = now + LOOK_SECONDS
        if waiting := self._reception.waiting_for(Stage.UPLOAD):
            self._hurry(waiting[-1].address)
        for held in self._reception.expired(math.inf if force else now):
            if force or held.stage in (Stage.IDLE, Stage.CLOSING):
                self._drop(held)
                continue
            with contextlib.suppress(OSError):
                held.connection.sock.send(_TOO_SLOW, socket.MSG_DONTWAIT)
            self._reception.release(held)
            self._begin_closing(held.connection)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Also the first thing that gunicorn calls when it ends in grace, in its main thread."""
        super().set_accept_enabled(enabled)
        if not enabled and (not self.alive or os.getppid() != self.ppid):
            self.alive = False  # gunicorn leaves it true after the death of its master
            self._close_listeners()
            services_of(self.wsgi).live.end()  # no request waits for them
            self._seconds = {stage: min(seconds, CLOSING_SECONDS) for stage, seconds in self._seconds.items()}
            self._reception.shorten(CLOSING_SECONDS)
            timer = threading.Timer(self.cfg.graceful_timeout - LAST_SECONDS, self._end_waiting_requests)
            timer.daemon = True  # it does not keep a process that has nothing left to serve
            timer.start()

    def _on_events(self, _: Reception) -> None:
        for held, is_ended in self._reception.events():
            if held.stage is Stage.CLOSING:
                if not drain(held.connection.sock):
                    self._drop(held)
            elif held.stage is Stage.UPLOAD:
                if is_ended:
                    self._drop(held)
            else:
                self._receive(held.connection, held, is_ended=is_ended)

    def _receive(self, conn: Any, held: Held | None, *, is_ended: bool = False) -> None:
        """Look at what has arrived on a connection, and decide where it belongs.

        Args:
            held: None: it comes from its client or from a thread.
            is_ended: The client sends nothing more.
        """
        match self._arrival(conn):
            case Arrival.CLOSED:
                self._leave(conn, held)
            case Arrival.PART_OF_HEAD if is_ended:
                self._leave(conn, held)
            case Arrival.NOTHING:
                self._hold(conn, held, Stage.IDLE if conn.initialized else Stage.HEAD)
            case Arrival.PART_OF_HEAD:
                self._hold(conn, held, Stage.HEAD)
            case Arrival.PART_OF_BODY if not is_ended:
                self._hold(conn, held, Stage.BODY)
            case Arrival.LONG if not self._uploads.take(conn, address_of(conn)):
                self._hurry(address_of(conn))
                self._hold(conn, held, Stage.UPLOAD)
            case Arrival.LONG:
                self._serve(conn, held, Stage.UPLOAD)
            case _:
                self._serve(conn, held, Stage.HEAD)

    def _arrival(self, conn: Any) -> Arrival:
        ahead = conn.parser.unreader.buf.getvalue() if conn.parser else b""
        if self._is_encrypted:  # what has arrived is encrypted
            return Arrival.WHOLE if ahead or is_readable(conn.sock, 0) else Arrival.NOTHING
        return arrival(conn.sock, ahead)

    def _hold(self, conn: Any, held: Held | None, stage: Stage) -> None:
        if held is None:
            for victim in self._reception.hold(conn, stage, self._seconds[stage]):
                self._drop(victim)
        elif held.stage is not stage:
            held.stage, held.deadline = stage, time.monotonic() + self._seconds[stage]

    def _serve(self, conn: Any, held: Held | None, stage: Stage) -> None:
        if held is not None:
            self._reception.release(held)
        self._allow(conn, stage)
        conn.data_ready = True
        if stage is not Stage.UPLOAD:
            super().enqueue_req(conn)
            return
        served = self._upload_pool.submit(super().handle, conn)  # it does not linger for short requests
        served.add_done_callback(lambda fs: self.method_queue.defer(self.finish_request, conn, fs))

    def _allow(self, conn: Any, stage: Stage) -> None:
        """Give the thread of a connection the time of a stage to read from it."""
        if isinstance(conn.sock, ArrivingSocket):  # not one with TLS
            conn.sock.allow(self._seconds[stage])

    def _end_upload(self, conn: Any) -> None:
        """Give the slot of a connection that needs none any more to the newest that waits for one.

        Those that have waited for long are many, and therefore slow; one that comes meanwhile is not held up by them.
        """
        if self._uploads.give_back(conn):
            for held in reversed(self._reception.waiting_for(Stage.UPLOAD)):
                if self._uploads.take(held.connection, held.address):
                    self._serve(held.connection, held, Stage.UPLOAD)
                    return

    def _hurry(self, address: str) -> None:
        """Cut one slow body that has a slot for which a connection of this address waits."""
        for conn in self._uploads.in_the_way_of(address):
            if conn.sock.cut_if_slow():
                return

    def _begin_closing(self, conn: Any) -> None:
        """Close a connection without losing the end of its response: the client closes first, if it does so in time."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._leave(conn, None)
            return
        if drain(conn.sock):
            self._hold(conn, None, Stage.CLOSING)
        else:
            self._leave(conn, None)

    def _leave(self, conn: Any, held: Held | None) -> None:
        if held is not None:
            self._reception.release(held)
        self.nr_conns -= 1
        conn.close()

    def _drop(self, held: Held) -> None:
        self._leave(held.connection, held)

    def _most_threads(self) -> int:
        return int(self.cfg.threads) + upload_threads(self.cfg.threads)

    def _lacks_threads(self) -> bool:
        """Whether a connection waits for a thread. Each has one or waits for one, but those that are held."""
        return bool(self.nr_conns - len(self._reception) > self._most_threads())

    def _close_listeners(self) -> None:
        """gunicorn leaves them open to its end. Connections would queue there without a response, to be reset."""
        for listener in self.sockets:
            listener.close()

    def _end_waiting_requests(self) -> None:
        services_of(self.wsgi).jobs.waiters.shut_down()
