"""Deadlines of a client's socket."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.server import arriving_socket
from app.server.arriving_socket import ArrivingSocket
from tests.waiting import scaled

Pair = tuple[socket.socket, ArrivingSocket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with client, ArrivingSocket.take(accepted) as server:
        yield client, server


def test_drops_that_keep_coming_do_not_move_the_deadline(pair: Pair) -> None:
    client, server = pair
    server.allow(0.3)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            client.send(b"x")

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        while server.recv(100):
            assert time.monotonic() - started < scaled(5)
    stop.set()
    dripping.join()
    assert server.is_late
    assert time.monotonic() - started > 0.25


def test_the_time_out_of_the_socket_itself_is_kept(pair: Pair) -> None:
    _, server = pair
    server.allow(scaled(30))
    server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.recv(1)
    assert not server.is_late


def test_a_body_that_arrives_fast_moves_its_deadline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = pair
    monkeypatch.setattr(arriving_socket, "LEAST_BYTES_PER_SECOND", 4096 / scaled(10))
    server.allow(0.3)
    client.sendall(b"x" * 4096)
    assert len(server.recv(4096)) == 4096
    time.sleep(0.4)
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    assert not server.is_late


def test_a_slow_client_is_cut_for_one_that_waits_and_a_fast_one_is_not(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = pair
    monkeypatch.setattr(arriving_socket, "PATIENCE_SECONDS", 0.05)
    server.allow(scaled(30))
    client.sendall(b"x" * 60_000)
    while server._received < 60_000:
        server.recv(60_000)
    assert not server.cut_if_slow(), "not yet, or fast"
    server.allow(scaled(30))
    time.sleep(0.1)
    assert server.cut_if_slow()
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_a_client_that_reads_nothing_of_a_long_response_is_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = pair
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    with pytest.raises(ConnectionResetError):
        server.sendall(b"x" * 100_000_000)


def test_the_end_of_a_stalled_response_is_set_on_every_socket(pair: Pair) -> None:
    milliseconds = pair[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert milliseconds == arriving_socket.STALLED_SEND_SECONDS * 1000
