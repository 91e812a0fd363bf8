"""The listener of probes."""

import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.server import liveness
from tests.waiting import scaled


@dataclass
class Probe:
    port: int
    is_alive: bool = True

    def status(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=scaled(3))
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status


@pytest.fixture
def probe() -> Iterator[Probe]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    probe = Probe(listener.getsockname()[1])
    liveness.start(listener, lambda: probe.is_alive)
    yield probe


def test_it_answers_while_the_main_loop_turns(probe: Probe) -> None:
    assert probe.status() == 200
    probe.is_alive = False
    assert probe.status() == 503


def test_clients_that_send_nothing_do_not_delay_it(probe: Probe) -> None:
    silent = [socket.create_connection(("127.0.0.1", probe.port)) for _ in range(100)]
    assert probe.status() == 200
    for one in silent:
        one.close()
