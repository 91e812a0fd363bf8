"""The connections of a process that have no thread: how long they may stay, how many, and which goes when one is too
many.

All of it runs in one thread.
"""

import functools
import ipaddress
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol


class Stage(Enum):
    """What a connection waits for: its next request, the rest of a head or of a short body, a thread that reads a long
    body, or the client's end of a closed one."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    UPLOAD = auto()
    CLOSING = auto()


class Connection(Protocol):
    """What is needed of a connection of gunicorn. client: the peer's address."""

    sock: socket.socket
    client: Any


@dataclass(slots=True, eq=False)
class Held:
    """deadline: by `time.monotonic`."""

    connection: Any
    address: str
    stage: Stage
    deadline: float


class Reception:
    """Holds connections and watches their sockets. `fileno`: readable when something has happened on one of them.

    Args:
        most: How many it holds.
        most_per_address: How many of them may come from one address.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, Held] = {}  # the one that has been here longest first, as in the next one
        self._by_address: dict[str, dict[int, Held]] = {}

    def __len__(self) -> int:
        return len(self._by_descriptor)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def is_full_for(self, address: str) -> bool:
        """Whether another connection of this address could stay only in the place of one that is here."""
        return len(self) >= self._most or len(self._by_address.get(address, ())) >= self._most_per_address

    def hold(self, connection: Connection, stage: Stage, seconds: float) -> list[Held]:
        """Hold a connection for so long at most, and return those that have to go for it."""
        held = Held(connection, address_of(connection), stage, time.monotonic() + seconds)
        descriptor = connection.sock.fileno()
        self._by_descriptor[descriptor] = held
        own = self._by_address.setdefault(held.address, {})
        own[descriptor] = held
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        if len(own) > self._most_per_address:
            return [_first_to_go(own, held)]
        if len(self) > self._most:
            return [_first_to_go(max(self._by_address.values(), key=len), held)]
        return []

    def release(self, held: Held) -> None:
        """Give up a connection, to a thread or to be closed. Its socket must still be open."""
        descriptor = held.connection.sock.fileno()
        del self._by_descriptor[descriptor]
        own = self._by_address[held.address]
        del own[descriptor]
        if not own:
            del self._by_address[held.address]
        self._epoll.unregister(descriptor)

    def events(self) -> Iterator[tuple[Held, bool]]:
        """Yield each connection on which something has arrived, and whether its client has closed its end."""
        for descriptor, event in self._epoll.poll(0):
            held = self._by_descriptor.get(descriptor)
            if held is not None:  # else given up because of an event before this one
                yield held, bool(event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR))

    def waiting_for(self, stage: Stage) -> list[Held]:
        """Return the connections that wait for this, the longest wait first."""
        return [held for held in self._by_descriptor.values() if held.stage is stage]

    def expired(self, now: float) -> list[Held]:
        return [held for held in self._by_descriptor.values() if held.deadline <= now]

    def longest_held(self) -> Held | None:
        return next(iter(self._by_descriptor.values()), None)

    def shorten(self, seconds: float) -> None:
        """Let every connection stay for so long at most."""
        latest = time.monotonic() + seconds
        for held in self._by_descriptor.values():
            held.deadline = min(held.deadline, latest)


def address_of(connection: Connection) -> str:
    """Return what a connection is counted by: an IPv4 address, 64 bits of an IPv6 address, or "unix"."""
    return _network(connection.client[0]) if isinstance(connection.client, tuple) else "unix"


@functools.lru_cache(1024)
def _network(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


def _first_to_go(held: dict[int, Held], newest: Held) -> Held:
    """Choose the one that has been here longest, of those that have sent no whole request if there are any."""
    others = (one for one in held.values() if one.stage is not Stage.IDLE and one is not newest)
    return next(others, next(iter(held.values())))
