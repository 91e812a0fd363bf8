"""A small real HTTP server with OpenAI's API, whose answers and faults a test scripts."""

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import scaled

MODEL = "remote"
SECRET = "sk-secret-of-upstream"  # in every error body: it must not get any further


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append(ReceivedRequest(self.path, self.headers, {}))
        self.server.on_models(self)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(ReceivedRequest(self.path, self.headers, body))
        answer = self.server.answers.popleft()
        with contextlib.suppress(ConnectionError):  # the client has left, as some tests want
            answer(self)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def whole(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.begin(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def event(self, data: str) -> None:
        chunk = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


@dataclass(frozen=True)
class ReceivedRequest:
    path: str
    headers: Message
    body: Any


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ReceivedRequest] = []
        self.answers: deque[Answer] = deque()
        self.on_models: Answer = json_answer({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        self.disconnected = threading.Event()  # a client has cut its connection

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def bodies(self) -> list[Any]:
        return [request.body for request in self.requests if request.body]

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def upstream_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def json_answer(body: Any, status: int = 200, **headers: str) -> Answer:
    return lambda handler: handler.whole(
        status, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def refuses(status: int, code: str = "anything", **headers: str) -> Answer:
    error = {"message": f"the key {SECRET} is wrong", "code": code, "param": SECRET, "type": SECRET}
    return json_answer({"error": error}, status, **headers)


def text(*pieces: str, reason: str | None = "stop", usage: tuple[int, int] | None = (5, 7)) -> Answer:
    """A completion in pieces; without a reason the stream ends in the middle."""
    return chunks(
        *({"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces),
        *([] if reason is None else [{"choices": [{"index": 0, "text": "", "finish_reason": reason}]}]),
        *([] if reason is None or usage is None else [counted(*usage)]),
        is_whole=reason is not None,
    )


def chat(*deltas: dict[str, Any] | str, reason: str | None = "stop", usage: tuple[int, int] | None = (5, 7)) -> Answer:
    contents = [{"content": delta} if isinstance(delta, str) else delta for delta in deltas]
    return chunks(
        *({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in contents),
        *([] if reason is None else [{"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]),
        *([] if reason is None or usage is None else [counted(*usage)]),
        is_whole=reason is not None,
    )


def counted(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 2}}}


def chunks(*events: Any, is_whole: bool = True) -> Answer:
    """A stream; one that is not whole is cut, without the end that HTTP has."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for chunk in events:
            handler.event(chunk if isinstance(chunk, str) else json.dumps({"id": "x", "object": "x", **chunk}))
        if is_whole:
            handler.event("[DONE]")
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.wfile.flush()
            handler.close_connection = True

    return answer


def hangs(*pieces: str) -> Answer:
    """Some text, then nothing until the client has left."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for piece in pieces:
            chunk = {"choices": [{"index": 0, "text": piece, "delta": {"content": piece}, "finish_reason": None}]}
            handler.event(json.dumps({"id": "x", "object": "x", **chunk}))
        handler.connection.settimeout(scaled(20))
        if handler.connection.recv(1) == b"":
            handler.server.disconnected.set()
        handler.close_connection = True

    return answer
