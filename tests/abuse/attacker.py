"""What attacks are made of. It runs in a process of its own, and comes from an address of its own."""

import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.abuse.service import ATTACKER_KEY

ADDRESS = "127.0.0.2"
_TIMEOUT_SECONDS = 60
_OPEN_FILES = 8192

Outcomes = Counter[str]
"""What the attacker got: statuses, broken connections, and what an attack counts of its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """seconds: how long the attack lasts."""

    url: str
    seconds: float

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    def client(self, key: str = ATTACKER_KEY) -> httpx.Client:
        limits = httpx.Limits(max_connections=None)
        transport = httpx.HTTPTransport(local_address=ADDRESS, limits=limits)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, transport=transport, headers=headers, timeout=_TIMEOUT_SECONDS)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=(ADDRESS, 0))


def post_all(target: Target, path: str, make: Callable[[int], Any], at_once: int, *, at_most: int = 10**6) -> Outcomes:
    """Send `make(0)`, `make(1)`, ... until the time is over, so many at once; return the statuses.

    Args:
        make: makes a body: JSON, or bytes that are sent as they are.
        at_most: the number of requests.
    """
    deadline = time.monotonic() + target.seconds
    numbers = iter(range(at_most))
    outcomes: Outcomes = Counter()

    def client(http: httpx.Client) -> None:
        for number in numbers:
            body = make(number)
            content = {"content": body} if isinstance(body, bytes) else {"json": body}
            try:
                answer = http.post(path, headers={"Content-Type": "application/json"}, **content)
                outcomes[f"{answer.status_code} {_code(answer)}".strip()] += 1
            except httpx.HTTPError as error:
                outcomes[type(error).__name__] += 1
            if time.monotonic() > deadline:
                return

    with target.client() as http, ThreadPoolExecutor(at_once) as pool:
        for one in [pool.submit(client, http) for _ in range(at_once)]:
            one.result()
    return outcomes


def hold(target: Target, connections: int, begin: bytes, more: bytes, pause_seconds: float) -> Outcomes:
    """Open so many connections, send `begin` and then `more` again and again; return how each of them ended."""
    _raise_open_file_limit()
    deadline = time.monotonic() + target.seconds
    outcomes: Outcomes = Counter()
    held: list[socket.socket] = []
    for _ in range(connections):
        try:
            one = target.connect()
            one.sendall(begin)
            one.setblocking(False)
            held.append(one)
        except OSError:
            outcomes["refused"] += 1
    while held and time.monotonic() < deadline:
        time.sleep(pause_seconds)
        held = [one for one in held if not _ended(one, more, outcomes)]
    outcomes["held to the end"] += len(held)
    for one in held:
        one.close()
    return outcomes


def _ended(one: socket.socket, more: bytes, outcomes: Outcomes) -> bool:
    """Whether the service has answered or closed the connection, which is counted then."""
    try:
        reply = one.recv(65536)
        outcomes[reply.split(b" ")[1].decode() if reply else "closed"] += 1
    except BlockingIOError:
        try:
            one.send(more)
        except BlockingIOError:
            pass
        except OSError:
            outcomes["closed"] += 1
            return True
        return False
    except OSError:
        outcomes["closed"] += 1
    one.close()
    return True


def _code(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    error = body.get("error", body) if isinstance(body, dict) else {}
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def _raise_open_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
