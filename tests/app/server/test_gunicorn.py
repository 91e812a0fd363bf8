"""The API under gunicorn: behaviour that only a real socket shows."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.response_headers import HEADERS
from app.config.addresses import addresses_of, with_port
from app.config.own_command import own_command
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of, working
from tests.stack import Stack
from tests.valkey import Valkey
from tests.waiting import scaled, until

MODEL = "gunicorn"


@pytest.fixture(scope="module")
def running_api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    server = {"processes": 1, "threads": 64, "max_body_bytes": 100_000}
    stack = Stack(tmp_path_factory.mktemp(MODEL), valkey.url, {"model_name": MODEL, "server": server})
    stack.start_api()
    try:
        stack.wait_alive()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def api(running_api: Stack, redis_url: str) -> Stack:
    """The running API over an empty database."""
    return running_api


@pytest.fixture
def player(api: Stack, redis_url: str) -> Iterator[ScriptedWorker]:
    with working(redis_url, MODEL) as worker:
        yield worker


def post(stack: Stack, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request and return without reading the answer."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=scaled(10))
    connection.sendall(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(data), data)
    )
    return connection


def only_job(stack: Stack, *, wait: int = 0) -> Any:
    deadline = time.monotonic() + scaled(5)
    while not (jobs := httpx.get(f"{stack.url}/jobs", timeout=scaled(5)).json()["data"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return httpx.get(f"{stack.url}{jobs[0]['urls']['self']}?wait={wait}", timeout=wait + scaled(5)).json()


def test_it_starts_with_one_line_and_writes_one_for_each_request(api: Stack, player: ScriptedWorker) -> None:
    with api.client() as client:
        assert [client.post("/generate", json={"prompt": "x"}).json() for _ in range(3)] == ["Hello world"] * 3
    until(lambda: len(api.log("api").splitlines()) >= 4, what="the lines of the requests")
    first, *requests = api.log("api").splitlines()
    assert first == f"api: listening on 127.0.0.1:{api.port} with 1 process of 64 threads"
    assert [" INFO app.access: POST /generate 200 ms=" in line for line in requests] == [True] * 3


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "X-Forwarded-Ssl"])
def test_a_header_for_proxies_changes_nothing_though_it_comes_from_this_machine(api: Stack, name: str) -> None:
    headers = {name: "/x", "X-Forwarded-Proto": "https"}
    with api.client() as client:
        assert client.get("/healthz", headers=headers).status_code == 200


def test_a_proxy_on_this_machine_says_whether_its_client_used_tls(api: Stack) -> None:
    with api.client() as client:
        wrong = client.get("/chat/completions", headers={"X-Forwarded-Proto": "https"}).text
    assert f"https://127.0.0.1:{api.port}/v1" in wrong


def test_a_generate_whose_client_leaves_is_canceled(api: Stack, player: ScriptedWorker) -> None:
    player.play = Turn.wait_for_cancel
    connection = post(api, "/generate", {"prompt": "x"})
    only_job(api)
    connection.close()
    assert only_job(api, wait=10)["status"] == "canceled"


def test_a_generate_whose_client_leaves_continues_when_requested(api: Stack, player: ScriptedWorker) -> None:
    player.play = play_of(lambda turn: time.sleep(0.5), "done", Turn.succeed)
    connection = post(api, "/generate", {"prompt": "x", "on_disconnect": "continue"})
    only_job(api)
    connection.close()
    assert only_job(api, wait=10)["status"] == "succeeded"


def test_a_stream_whose_client_leaves_is_canceled(api: Stack, player: ScriptedWorker) -> None:
    def chatter(turn: Turn) -> None:
        for _ in range(20):
            turn.delta("word ")
            time.sleep(0.02)
        turn.wait_for_cancel()

    player.play = chatter
    connection = post(api, "/agenerate", {"prompt": "x", "stream": True})
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.close()
    assert only_job(api, wait=10)["status"] == "canceled"


def test_a_stream_arrives_piece_by_piece_with_its_end(api: Stack, player: ScriptedWorker) -> None:
    player.play = play_of("a", lambda turn: time.sleep(0.3), "b", Turn.succeed)
    with api.client() as client, client.stream("POST", "/agenerate", json={"prompt": "x", "stream": True}) as response:
        arrivals = [(time.monotonic(), piece) for piece in response.iter_raw()]
        assert client.get("/check").json() == "Ok"
    assert arrivals[-1][0] - arrivals[0][0] > 0.2
    assert b"data: a" in arrivals[0][1] and b"data: b" in arrivals[-1][1]


@pytest.mark.parametrize("size", [150_000, 20_000_000])
def test_a_body_over_the_limit_gets_413(api: Stack, size: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
    connection.request("POST", "/generate", body=b"x" * size)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "body_too_large")
    connection.close()


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
@pytest.mark.parametrize("more", ["", "Expect: 100-continue\r\n"])
def test_an_announced_body_over_the_limit_gets_413_before_any_of_it_is_sent(api: Stack, path: str, more: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n{more}\r\n"
    with socket.create_connection(("127.0.0.1", api.port), timeout=scaled(5)) as connection:  # body_seconds is 20
        connection.sendall(head.encode())
        assert connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413", "and no 100 before it"
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = json.loads(response.read())
    error = body["error"] if path.startswith("/v1") else body
    assert (response.status, error["code"]) == (413, "body_too_large")
    assert "server.max_body_bytes" in str(error)


def test_an_announced_file_may_be_longer_than_other_bodies(api: Stack) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api.port), timeout=scaled(5)) as connection:
        connection.sendall(head)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100 Continue")


def test_a_chunked_body_over_the_limit_gets_413(api: Stack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
    connection.request("POST", "/generate", body=iter([b"x" * 50_000] * 3), encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "body_too_large")
    connection.close()


def test_a_chunked_body_is_read(api: Stack, player: ScriptedWorker) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
    connection.request("POST", "/generate", body=iter([b'{"prompt":', b' "x"}']), encode_chunked=True)
    assert connection.getresponse().read() == b'"Hello world"'
    connection.close()


def raw_post(stack: Stack, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
    """Send a chunked body as it is, and no more. Return the status, 0 for none, and all that the server sent."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=scaled(10)) as connection:
        head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", *headers])
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    return int(answer.split()[1]) if answer else 0, answer


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/files"])
@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"\r\n",
        b"2;\x01\r\n{}\r\n0\r\n\r\n",
        b"1\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
        b"9" * 20_000,
    ],
)
def test_malformed_chunks_get_400_without_a_traceback(api: Stack, path: str, body: bytes) -> None:
    status, answer = raw_post(api, path, body, "Content-Type: multipart/form-data; boundary=x")
    assert status == 400 and b"malformed_request" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in api.log("api")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization secret\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n secret\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        (b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "request_line_too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: secret\r\n\r\n", 417, "expectation_unknown"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: secret\r\n\r\n", 501, "transfer_coding_unknown"),
    ],
)
def test_what_is_no_request_gets_a_problem_document_with_the_headers_of_every_response(
    api: Stack, sent: bytes, status: int, code: str
) -> None:
    lines = api.lines("api")
    with socket.create_connection(("127.0.0.1", api.port), timeout=scaled(10)) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
    assert (response.status, json.loads(body)["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert HEADERS.items() <= dict(response.headers).items()
    assert b"secret" not in body and api.lines("api") == lines


def test_a_malformed_chunk_after_the_limit_still_gets_413(api: Stack) -> None:
    status, answer = raw_post(api, "/generate", b"30000\r\n" + b"x" * 0x30000 + b"\r\nzz\r\n")
    assert status == 413 and answer.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in api.log("api")


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(api: Stack) -> None:
    for body in (b"20\r\nabc", b"2\r\n{}\r\n"):
        raw_post(api, "/generate", body)
    assert "Traceback" not in api.log("api")


def test_without_keys_and_for_every_address_it_warns_and_localhost_works_by_both_families(
    tmp_path: Path, valkey: Valkey
) -> None:
    server = {"host": "0.0.0.0", "processes": 1, "threads": 8}
    stack = Stack(tmp_path, valkey.url, {"model_name": MODEL, "server": server})
    stack.start_api()
    try:
        stack.wait_alive()
        for address in addresses_of("localhost"):
            url = f"http://{with_port(address, stack.port)}/check"
            assert httpx.get(url, timeout=scaled(5)).json() == "Ok"
    finally:
        stack.stop()
    first, *warnings = stack.lines("api")
    assert f"listening on 0.0.0.0:{stack.port} " in first
    assert all(line.startswith("api: WARNING: ") for line in warnings)
    assert "there is no API key" in warnings[0] and own_command("keys create NAME --scope admin") in warnings[1]
