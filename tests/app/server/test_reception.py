"""Which connections may wait without a thread, and which one goes."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.server.reception import Held, Reception, Stage, address_of
from tests.waiting import until


@dataclass(eq=False)
class Client:
    sock: socket.socket
    other: socket.socket
    client: Any


Join = Callable[[str], Client]


@pytest.fixture
def join() -> Iterator[Join]:
    sockets: list[socket.socket] = []

    def make(address: str) -> Client:
        here, there = socket.socketpair()
        sockets.extend((here, there))
        return Client(here, there, (address, 1))

    yield make
    for one in sockets:
        one.close()


def of(held: list[Held]) -> list[Any]:
    return [one.connection for one in held]


def test_a_connection_of_an_address_that_has_many_replaces_its_oldest(join: Join) -> None:
    reception = Reception(10, 2)
    first, second, third, other = join("10.0.0.1"), join("10.0.0.1"), join("10.0.0.1"), join("10.0.0.2")
    assert reception.hold(other, Stage.HEAD, 1) == []
    assert reception.hold(first, Stage.HEAD, 1) == reception.hold(second, Stage.HEAD, 1) == []
    assert reception.is_full_for("10.0.0.1")
    assert not reception.is_full_for("10.0.0.2")
    assert of(reception.hold(third, Stage.HEAD, 1)) == [first]


def test_one_that_has_sent_no_request_goes_before_one_that_is_kept_alive(join: Join) -> None:
    reception = Reception(10, 2)
    idle, slow, new = join("10.0.0.1"), join("10.0.0.1"), join("10.0.0.1")
    reception.hold(idle, Stage.IDLE, 1)
    reception.hold(slow, Stage.HEAD, 1)
    assert of(reception.hold(new, Stage.IDLE, 1)) == [slow]


def test_the_newest_never_goes_at_once(join: Join) -> None:
    reception = Reception(10, 1)
    idle, new = join("10.0.0.1"), join("10.0.0.1")
    reception.hold(idle, Stage.IDLE, 1)
    assert of(reception.hold(new, Stage.HEAD, 1)) == [idle]


def test_a_full_process_takes_the_place_from_the_address_that_has_most(join: Join) -> None:
    reception = Reception(3, 3)
    few, many, more, new = join("10.0.0.1"), join("10.0.0.2"), join("10.0.0.2"), join("10.0.0.3")
    for one in (few, many, more):
        reception.hold(one, Stage.HEAD, 1)
    assert of(reception.hold(new, Stage.HEAD, 1)) == [many]


def test_an_event_is_reported_once_and_the_end_of_the_client_with_it(join: Join) -> None:
    reception = Reception(3, 3)
    one = join("10.0.0.1")
    reception.hold(one, Stage.HEAD, 1)
    assert list(reception.events()) == []
    one.other.send(b"G")
    assert [(held.connection, is_ended) for held, is_ended in reception.events()] == [(one, False)]
    assert list(reception.events()) == [], "unread bytes alone cost nothing"
    one.other.close()
    until(lambda: [is_ended for _, is_ended in reception.events()] == [True])


def test_what_is_released_is_neither_watched_nor_counted(join: Join) -> None:
    reception = Reception(1, 1)
    one = join("10.0.0.1")
    reception.hold(one, Stage.IDLE, 1)
    (held,) = reception.expired(held_until := float("inf"))
    reception.release(held)
    one.other.send(b"G")
    assert (len(reception), list(reception.events()), reception.expired(held_until)) == (0, [], [])
    assert not reception.is_full_for("10.0.0.1")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", "unix"),
    ],
)
def test_addresses_of_one_client_count_as_one(peer: Any, expected: str, join: Join) -> None:
    client = join("")
    client.client = peer
    assert address_of(client) == expected
