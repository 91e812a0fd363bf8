"""One HTTP POST to an address that was looked at: no redirects, no proxy, no second look-up, an end in time."""

import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

from app.api.webhooks.addresses import Address, addresses_of

MAX_ADDRESSES = 3  # of one host, tried one after the other
MAX_HEAD_BYTES = 16_384
_RECEIVE_BYTES = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """after_seconds: what the receiver asks to wait."""

    status: int
    after_seconds: int | None


class NoAnswer(Exception):
    """Not reached, cut off, silent, or not HTTP. Its text is ours."""


def post(
    url: str, headers: Mapping[str, str], body: bytes, *, seconds: float, latest: float, allow_private: bool
) -> PostAnswer:
    """The receiver's status. seconds: for all but the look-up of its name.

    latest: on the monotonic clock: not begun after that, however long the look-up took.

    Raises ForbiddenAddress, NoAnswer.
    """
    parts = urlsplit(url)
    host, is_safe = parts.hostname or "", parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {told}" for name, told in headers.items())]
    head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    try:
        found = list(addresses_of(host, parts.port or (443 if is_safe else 80), allow_private=allow_private))
        if time.monotonic() > latest:
            raise NoAnswer("its name took too long to look up")
        deadline = time.monotonic() + seconds
        with _connected(found[:MAX_ADDRESSES], deadline) as plain:
            connection = _trust().wrap_socket(plain, server_hostname=host) if is_safe else plain
            with connection:
                connection.settimeout(_left(deadline))
                connection.sendall("\r\n".join(head).encode() + body)
                return _read(connection, deadline)
    except UnicodeError:
        raise NoAnswer("its name is none") from None
    except ssl.SSLError as error:
        raise NoAnswer(f"TLS failed ({error.reason or 'no certificate that is trusted'})") from None
    except TimeoutError:
        raise NoAnswer("silent") from None
    except OSError as error:
        raise NoAnswer(f"not reached ({type(error).__name__})") from None


def _connected(found: list[Address], deadline: float) -> socket.socket:
    failure: OSError = OSError("no address")
    for family, address in found:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _read(connection: socket.socket, deadline: float) -> PostAnswer:
    """The head of the answer; nobody asks for its body."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
        connection.settimeout(_left(deadline))
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            break
        head += received
    status = _STATUS.match(head)
    if status is None:
        raise NoAnswer("no HTTP answer")
    after = _RETRY_AFTER.search(head)
    return PostAnswer(int(status[1]), None if after is None else int(after[1]))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, or those that `SSL_CERT_FILE` names."""
    return ssl.create_default_context()
