"""How the receivers respond, as this process sees it: one that does not respond must not delay the others.

A receiver is a scheme, host and port. One client can have many of them: any number of names lead to one address. What
is being sent is therefore also counted by address, whatever its port, and by the owner of the jobs.
"""

import ipaddress
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.jobs.job import ANONYMOUS

SENDERS = 8  # per process
SENDERS_PER_RECEIVER = 4
SENDERS_PER_OWNER = 4
SENDERS_PER_ADDRESS = 6  # above that of a receiver, for one address may serve many customers
BUSY_PAUSE_SECONDS = 1.0  # until the next look at a webhook whose receiver has enough senders
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0  # after attempts without a response
MAX_KNOWN = 10_000


@dataclass(slots=True)
class _Receiver:
    in_flight: int = 0
    silent_attempts: int = 0  # attempts in a row
    pause_end: float = 0.0


class Receivers:
    """The receivers of webhooks, by scheme, host and port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Receiver] = {}
        self._owners: Counter[str] = Counter()  # what is being sent
        self._networks: Counter[str] = Counter()

    def enter(self, url: str, owner: str) -> float:
        """Return 0 if a webhook may be sent now, with a call of `leave` after it; else the seconds to wait."""
        with self._lock:
            if owner != ANONYMOUS and self._owners[owner] >= SENDERS_PER_OWNER:
                return _busy_pause()
            receiver = self._receiver(url)
            left = receiver.pause_end - time.monotonic()
            if left > 0:
                return left * random.uniform(1.0, 1.5)
            if receiver.in_flight >= (1 if receiver.silent_attempts else SENDERS_PER_RECEIVER):
                return _busy_pause()
            receiver.in_flight += 1
            self._owners[owner] += 1
            return 0.0

    def leave(self, url: str, owner: str, *, has_responded: bool | None) -> None:
        """Note the end of an attempt. has_responded: None: it was not made."""
        with self._lock:
            _decrease(self._owners, owner)
            receiver = self._receiver(url)
            receiver.in_flight -= 1
            if has_responded is None:
                return
            receiver.silent_attempts = 0 if has_responded else receiver.silent_attempts + 1
            if not has_responded:
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (receiver.silent_attempts - 1))
                receiver.pause_end = time.monotonic() + pause * random.uniform(0.5, 1.0)
            elif not receiver.in_flight:
                del self._known[_name(url)]

    def enter_addresses(self, addresses: Sequence[str]) -> float:
        """Return 0 if connections to these IP addresses may be made, with a call of `leave_addresses` after it; else
        the seconds to wait."""
        networks = {_network(address) for address in addresses}
        with self._lock:
            if any(self._networks[network] >= SENDERS_PER_ADDRESS for network in networks):
                return _busy_pause()
            self._networks.update(networks)
            return 0.0

    def leave_addresses(self, addresses: Sequence[str]) -> None:
        with self._lock:
            for network in {_network(address) for address in addresses}:
                _decrease(self._networks, network)

    def _receiver(self, url: str) -> _Receiver:
        name = _name(url)
        if name not in self._known and len(self._known) >= MAX_KNOWN:
            self._known = {known: receiver for known, receiver in self._known.items() if receiver.in_flight}
        return self._known.setdefault(name, _Receiver())


def _name(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _network(address: str) -> str:
    """Return what an address is counted by: 64 bits of IPv6 belong to one customer."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return address if ip.version == 4 else str(ipaddress.ip_network((int(ip), 64), strict=False))


def _busy_pause() -> float:
    return BUSY_PAUSE_SECONDS * random.uniform(1.0, 2.0)


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
