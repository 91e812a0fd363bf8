"""Keep-alive connections with the threads of a real gunicorn worker."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.server.gunicorn_worker import LINGER_MILLISECONDS
from tests.stack import Stack
from tests.valkey import Valkey
from tests.waiting import scaled, until

THREADS = 4
CERTIFICATE = Path(__file__).with_name("localhost.pem")  # self-signed, valid for a hundred years, with its key


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    folder, server = tmp_path_factory.mktemp("linger"), {"processes": 1, "threads": THREADS}
    stack = Stack(folder, valkey.url, {"model_name": "linger", "server": server})
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
        until(lambda: "listen on" in stack.log("api"))
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
