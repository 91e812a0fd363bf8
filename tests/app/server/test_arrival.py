"""What the kernel has of a request, seen from sockets of a real connection."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.server.arrival import HEAD_BYTES, HELD_BYTES, Arrival, arrival
from tests.waiting import until


@dataclass
class Pair:
    client: socket.socket
    server: socket.socket

    def send(self, data: bytes) -> None:
        """Send, and wait until it can be read."""
        self.client.sendall(data)
        until(lambda: self.server.recv(1, socket.MSG_PEEK))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Pair(client, server)


def post(*headers: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", Arrival.PART_OF_HEAD),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Arrival.WHOLE),
        (post(b"Content-Length: 3") + b"ab", Arrival.PART_OF_BODY),
        (post(b"Content-Length: 3") + b"abc", Arrival.WHOLE),
        (post(b"CONTENT-LENGTH:0"), Arrival.WHOLE),
        (post(b"Content-Length: 3") + b"abcGET / HT", Arrival.WHOLE),
        (post(b"Content-Length: %d" % HELD_BYTES) + b"ab", Arrival.LONG),
        (post(b"Content-Length: 9", b"Expect: 100-continue"), Arrival.LONG),
        (post(b"Transfer-Encoding: chunked") + b"1\r\na\r\n", Arrival.LONG),
    ],
)
def test_a_request_is_whole_when_its_head_and_its_body_are_there(pair: Pair, sent: bytes, expected: Arrival) -> None:
    pair.send(sent)
    assert arrival(pair.server) is expected
    assert pair.server.recv(HEAD_BYTES) == sent, "nothing was read"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\nHost: x\n\n",
        post(b"Content-Length: three"),
        post(b"Content-Length : 3"),
        post(b"Content-Length: 3", b"Content-Length: 4"),
        post(b"Content-Length: -1"),
        b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES,
    ],
)
def test_what_this_module_does_not_understand_is_left_to_a_thread_with_a_deadline(pair: Pair, sent: bytes) -> None:
    pair.send(sent)
    until(lambda: arrival(pair.server) is Arrival.LONG)


def test_a_body_longer_than_the_first_look_is_counted(pair: Pair) -> None:
    body = b"x" * (HELD_BYTES - 200)
    pair.send(post(b"Content-Length: %d" % len(body)) + body[:-1])
    assert arrival(pair.server) is Arrival.PART_OF_BODY
    pair.client.sendall(b"x")
    until(lambda: arrival(pair.server) is Arrival.WHOLE)


def test_a_request_that_arrives_byte_by_byte_is_held_by_the_kernel(pair: Pair) -> None:
    sent = post(b"Content-Length: 20000") + b"x" * 20_000
    for byte in sent[:-1]:
        pair.client.send(bytes([byte]))
    assert arrival(pair.server) is Arrival.PART_OF_BODY
    pair.client.send(sent[-1:])
    until(lambda: arrival(pair.server) is Arrival.WHOLE)


def test_what_was_read_ahead_belongs_to_the_request(pair: Pair) -> None:
    assert arrival(pair.server, b"GET / HTTP/1.1\r\n\r\n") is Arrival.WHOLE
    assert arrival(pair.server, b"GET / HT") is Arrival.PART_OF_HEAD
    pair.send(b"TP/1.1\r\n\r\n")
    assert arrival(pair.server, b"GET / HT") is Arrival.WHOLE


def test_a_client_that_speaks_tls_is_not_made_to_wait(pair: Pair) -> None:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    pair.send(outgoing.read())
    assert arrival(pair.server) is Arrival.CLOSED


def test_an_empty_and_a_closed_connection_are_told_apart(pair: Pair) -> None:
    assert arrival(pair.server) is Arrival.NOTHING
    pair.client.close()
    until(lambda: arrival(pair.server) is Arrival.CLOSED)
