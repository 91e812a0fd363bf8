"""Connections and the threads of a real gunicorn worker: kept alive, slow, silent, closing."""

import contextlib
import http.client
import math
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.server.gunicorn_worker import CLOSING_SECONDS, LINGER_MILLISECONDS, LONG_BODY_NICENESS, LOOK_SECONDS
from tests.stack import Stack, free_port
from tests.valkey import Valkey
from tests.waiting import scaled, until

THREADS = 4
NICE = 7
PER_ADDRESS = 20
SECONDS = 2  # for a head, and for a body
CERTIFICATE = Path(__file__).with_name("localhost.pem")  # self-signed, valid for a hundred years, with its key


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    server = {"processes": 1, "threads": THREADS, "header_seconds": SECONDS, "body_seconds": SECONDS}
    server |= {"connections_per_address": PER_ADDRESS, "health_port": free_port()}
    stack = Stack(
        tmp_path_factory.mktemp("linger"),
        valkey.url,
        {"model_name": "linger", "server": server, "worker": {"nice": NICE}},
    )
    stack.start_api()
    try:
        stack.wait_alive()
        yield stack
    finally:
        stack.stop()


def ask(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def ask_three_times_at_once(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    received = b""
    while received.count(b"HTTP/1.1 200") < 3 or received.count(b'"ok"') < 3:
        data = connection.recv(65536)
        assert data, received
        received += data


Attack = Callable[..., list[socket.socket]]


@pytest.fixture
def attack(api: Stack) -> Iterator[Attack]:
    """Opens twice as many connections as there are threads, of one other address, and sends the same on each."""
    with contextlib.ExitStack() as opened:

        def send(data: bytes, address: str = "127.0.0.2") -> list[socket.socket]:
            peer = ("127.0.0.1", api.port)
            clients = [
                opened.enter_context(socket.create_connection(peer, scaled(10), source_address=(address, 0)))
                for _ in range(2 * THREADS)
            ]
            for client in clients:
                client.sendall(data)
            return clients

        yield send


def seconds_to_answer(api: Stack) -> float:
    """Return how long another client waits for /healthz."""
    started = time.monotonic()
    assert httpx.get(f"{api.url}/healthz", timeout=scaled(10)).status_code == 200
    return time.monotonic() - started


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_clients_that_send_slowly_hold_up_no_other_and_get_408(api: Stack, attack: Attack) -> None:
    slow = {
        "nothing": b"",
        "a head": b"GET /healthz HT",
        "a body": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n{",
        "a second head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\n",
        "a long body": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n{",
        "chunks": b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    }
    clients = {kind: attack(sent, f"127.0.0.{number}") for number, (kind, sent) in enumerate(slow.items(), 2)}
    time.sleep(0.2)  # gthread has given them all its threads by then
    assert seconds_to_answer(api) < scaled(0.5)
    for kind, some in clients.items():
        answers = [read_all(client) for client in some]
        assert all(b" 408 " in answer for answer in answers), (kind, answers)
        assert all(b"request_timeout" in answer and b"no-store" in answer for answer in answers), (kind, answers)
    assert len(api.lines("api")) == 1, api.log("api")


def test_a_slow_body_that_nothing_reads_gets_its_answer_and_no_second_one(api: Stack, attack: Attack) -> None:
    lines = api.lines("api")
    clients = attack(
        b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
    )
    answers = [read_all(client) for client in clients]
    assert any(answer.startswith(b"HTTP/1.1 404") for answer in answers)
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 404", b"HTTP/1.1 408"}
    assert [answer.count(b"HTTP/1.1") for answer in answers] == [1] * len(answers)
    assert api.lines("api") == lines


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_long_bodies_are_read_at_a_higher_niceness_than_the_models(api: Stack) -> None:
    body = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", api.port), scaled(10)) as client:
        client.sendall(body)
        (process,) = psutil.Process(api.processes["api"].pid).children()
        until(lambda: NICE + LONG_BODY_NICENESS in _nices(process), what="a thread of this niceness")
        assert httpx.get(f"{api.url}/healthz", timeout=scaled(10)).status_code == 200
        assert 0 in _nices(process)
        client.sendall(b" " * (60_000 - 2) + b"}")
        assert b" 422 " in client.recv(65536)


def _nices(process: psutil.Process) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in process.threads()}


def test_a_client_that_drips_is_cut_off_in_time(api: Stack, attack: Attack) -> None:
    """It is answered at the deadline of its head, and its connection is closed when it does not close it then."""
    clients = attack(b"GET /healthz HTTP/1.1\r\n")
    started, answered_after = time.monotonic(), math.inf
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < scaled(5 * SECONDS):
            for client in clients:
                client.sendall(b"X: y\r\n")
            if len(select.select(clients, [], [], 0.1)[0]) == len(clients):
                answered_after = min(answered_after, time.monotonic() - started)
                time.sleep(0.1)
    closed_after = time.monotonic() - started
    assert SECONDS - LOOK_SECONDS < answered_after < scaled(SECONDS + 2 * LOOK_SECONDS)
    assert closed_after < answered_after + scaled(CLOSING_SECONDS + 2 * LOOK_SECONDS)


def test_clients_that_do_not_close_after_their_last_response_hold_up_no_other(api: Stack, attack: Attack) -> None:
    clients = attack(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert all(read_all(client).startswith(b"HTTP/1.1 200") for client in clients)
    assert seconds_to_answer(api) < scaled(0.5)


def test_an_address_has_so_many_connections_without_a_request_and_the_oldest_goes(api: Stack) -> None:
    with contextlib.ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection(("127.0.0.1", api.port), scaled(10)))
            for _ in range(PER_ADDRESS + 3)
        ]
        assert [client.recv(1) for client in clients[:3]] == [b""] * 3
        clients[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert clients[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_for_100_continue_gets_it_at_once(api: Stack) -> None:
    with socket.create_connection(("127.0.0.1", api.port), scaled(10)) as client:
        client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"{}")
        assert b"HTTP/1.1 422" in client.recv(1000)


def test_long_bodies_are_read_whether_they_arrive_at_once_or_in_pieces(api: Stack) -> None:
    body = b'{"prompt": ' + b" " * 300_000 + b"}"
    with socket.create_connection(("127.0.0.1", api.port), scaled(10)) as client:
        for pieces in ([body], [body[:100_000], body[100_000:]]):
            client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.1)
            assert b"HTTP/1.1 400" in client.recv(1000), "malformed JSON, to its end"


def test_probes_have_a_listener_of_their_own(api: Stack) -> None:
    port = api.config["server"]["health_port"]
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=scaled(5)).status_code == 200


@pytest.mark.parametrize("pause_milliseconds", [0, 4 * LINGER_MILLISECONDS], ids=["at once", "after a while"])
def test_requests_that_follow_each_other_on_a_connection_are_all_answered(api: Stack, pause_milliseconds: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
    for _ in range(20):
        assert ask(connection) == 200
        time.sleep(pause_milliseconds / 1000)
    connection.close()


def test_more_busy_clients_than_threads_are_all_served(api: Stack) -> None:
    failures: list[BaseException] = []

    def client() -> None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
            assert all(ask(connection) == 200 for _ in range(100))
            connection.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(4 * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_requests_sent_in_one_piece_are_answered_one_by_one(api: Stack) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=scaled(10)) as connection:
        ask_three_times_at_once(connection)


def test_a_client_over_tls_is_answered_whether_it_asks_one_by_one_or_all_at_once(
    tmp_path: Path, redis_url: str
) -> None:
    stack = Stack(tmp_path, redis_url, {"model_name": "linger", "server": {"processes": 1, "threads": THREADS}})
    stack.start_api("api", None, "--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE))
    try:
        until(lambda: "listening on" in stack.log("api"))
        trust = ssl.create_default_context(cafile=CERTIFICATE)
        secure = http.client.HTTPSConnection("localhost", stack.port, timeout=scaled(10), context=trust)
        assert [ask(secure) for _ in range(20)] == [200] * 20
        time.sleep(4 * LINGER_MILLISECONDS / 1000)
        assert ask(secure) == 200
        secure.close()
        plain = socket.create_connection(("localhost", stack.port), timeout=scaled(10))
        with trust.wrap_socket(plain, server_hostname="localhost") as connection:
            for _ in range(3):
                ask_three_times_at_once(connection)
    finally:
        stack.stop()


def test_a_client_that_leaves_after_its_answer_costs_nothing(api: Stack) -> None:
    for _ in range(3 * THREADS):
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=scaled(10))
        assert ask(connection) == 200
        connection.close()
    assert httpx.get(f"{api.url}/healthz", timeout=scaled(5)).status_code == 200
