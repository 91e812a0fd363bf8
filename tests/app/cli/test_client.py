"""What a client makes of servers that redirect, are strangers or break off, and of proxies of the environment."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from app.cli.client import Client, RequestFailed
from app.cli.job_events import JobEvent, follow

Respond = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with `respond`, and keeps the requests."""

    def __init__(self, respond: Respond) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                respond(self)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], Server]]:
    servers: list[Server] = []

    def start(respond: Respond) -> Server:
        servers.append(Server(respond))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(status: int, body: bytes, **headers: str) -> Respond:
    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (404, b"<html>"), (500, b'["x"]'), (502, b'{"error": "x"}')]
)
def test_a_server_that_is_no_llm_api_is_named_as_a_stranger(
    serve: Callable[[Respond], Server], status: int, body: bytes
) -> None:
    server = serve(answer(status, body))
    with pytest.raises(RequestFailed, match=r"does not respond as LLM API does \(status \d+\); check the address"):
        Client(server.url).get("/jobs")


def test_what_the_detail_says_of_a_field_is_not_said_again(serve: Callable[[Respond], Server]) -> None:
    body = {"detail": "a: Must be 1. b: Must be 2.", "errors": {"a": ["Must be 1."], "b": ["Must be 2."], "c": ["x"]}}
    with pytest.raises(RequestFailed) as raised:
        Client(serve(answer(422, json.dumps(body).encode())).url).get("/jobs")
    assert raised.value.message == "a: Must be 1. b: Must be 2.; c: x"


def test_a_redirect_is_an_error_and_the_key_goes_to_no_other_server(serve: Callable[[Respond], Server]) -> None:
    other = serve(answer(200, b"{}"))
    server = serve(answer(302, b"", Location=f"{other.url}/x"))
    with pytest.raises(RequestFailed, match=f"redirects to {other.url}/x; name that address with --url"):
        Client(server.url, "hunter2").get("/jobs")
    assert other.requests == [] and server.requests[0][1]["authorization"] == "Bearer hunter2"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    serve: Callable[[Respond], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client(serve(answer(200, b"{}")).url).get("/jobs") == {}


def test_a_job_is_followed_over_broken_connections_and_no_event_is_repeated(
    serve: Callable[[Respond], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.job_events._PAUSE_SECONDS", 0.01)
    events = [
        b'id: 1-0\nevent: started\ndata: {"attempt": 1}\n\n',
        b': still here\n\nid: 2-0\nevent: delta\ndata: {"text": "a"}\n\n',
        b'id: 3-0\nevent: delta\ndata: {"text": "b"}\n\nid: 4-0\nevent: end\ndata: {"status": "succeeded"}\n\n',
    ]
    turns = iter(
        [
            answer(200, events[0] + events[1] + b'id: 3-0\nevent: delta\ndata: {"te', **{"Content-Length": "9999"}),
            answer(503, b'{"detail": "Redis does not answer", "code": "store_unavailable"}'),
            answer(200, b""),
            answer(200, events[2]),
        ]
    )
    server = serve(lambda handler: next(turns)(handler))
    breaks: list[str] = []
    seen = list(follow(Client(server.url), "job", breaks.append))
    assert [event.type for event in seen] == ["started", "delta", "delta", "end"]
    assert seen[2] == JobEvent("3-0", "delta", {"text": "b"})
    assert [headers.get("last-event-id") for _, headers in server.requests] == [None, "2-0", "2-0", "2-0"]
    assert len(breaks) == 2, "each loss is reported once"


def test_a_service_that_stays_away_ends_the_wait(
    serve: Callable[[Respond], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.job_events.PATIENCE_SECONDS", 0.0)
    server = serve(answer(503, b'{"detail": "Redis does not answer"}'))
    with pytest.raises(RequestFailed, match="Redis does not answer"):
        list(follow(Client(server.url), "job"))


def problem(code: str) -> bytes:
    return f'event: error\ndata: {{"code": "{code}", "status": 503, "detail": "because"}}\n\n'.encode()


def test_events_that_a_stopping_service_breaks_off_are_followed_after_the_last_one(
    serve: Callable[[Respond], Server],
) -> None:
    pieces = [b"id: 1-0\nevent: started\ndata: {}\n\n" + problem("shutting_down"), b"id: 2-0\nevent: end\ndata: {}\n\n"]
    server = serve(lambda handler: answer(200, pieces.pop(0))(handler))
    assert [event.id for event in follow(Client(server.url), "j")] == ["1-0", "2-0"]
    assert server.requests[1][1]["last-event-id"] == "1-0"


def test_a_job_that_no_worker_will_run_is_followed_no_further(serve: Callable[[Respond], Server]) -> None:
    server = serve(answer(200, problem("no_worker")))
    with pytest.raises(RequestFailed, match="because"):
        list(follow(Client(server.url), "j"))
    assert len(server.requests) == 1
