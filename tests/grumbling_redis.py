"""A Redis that answers every command with one error, for errors that a real one gives only in rare states."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                words = int(line[1:])
                for _ in range(2 * words):
                    self.rfile.readline()
                self.wfile.write(b"-%s\r\n" % self.server.error)  # type: ignore[attr-defined]


@contextlib.contextmanager
def grumbling_redis(error: str) -> Iterator[str]:
    """Run it and yield its URL. error: as in the protocol, `LOADING Redis is loading the dataset in memory`."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.error = error.encode()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
