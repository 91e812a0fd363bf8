"""One HTTP POST to a receiver: an allowed address only, no redirects, no proxy, no second look-up, within a deadline.

A URL that a client chooses must not lead to what only this machine can reach.
"""

import contextlib
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from app.config.settings import WebhooksConfig
from app.errors import InvalidRequest
from app.jobs.job import Webhook

MAX_ADDRESSES = 3  # of one host, tried in turn
MAX_HEAD_BYTES = 16_384
_RECEIVE_BYTES = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)

_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "192.0.0.192")))  # of Azure and Oracle Cloud
Address = tuple[socket.AddressFamily, tuple[Any, ...]]  # as `socket.connect` takes it


@dataclass(frozen=True, slots=True)
class PostResponse:
    """retry_after_seconds: the pause that the receiver asks for; 0 = none."""

    status: int
    retry_after_seconds: int


class ForbiddenAddress(Exception):
    """The host has no address that webhooks may be sent to."""


class NoResponse(Exception):
    """The receiver was not reached, was cut off, was silent, or did not respond in HTTP. Its text is safe to log."""


def reject_unsendable(webhook: Webhook, config: WebhooksConfig) -> None:
    """Reject a webhook that cannot be sent, as far as its URL shows. Raises InvalidRequest."""
    if config.secret is None:
        reason = "this server sends no webhooks: the operator must set webhooks.secret"
        raise InvalidRequest(f"webhook: {reason}", errors={"webhook": [reason]})
    host = urlsplit(webhook.url).hostname or ""
    with contextlib.suppress(ValueError):  # a name, which is looked up when the webhook is sent
        if not (config.allow_private or is_public(host)):
            reason = "this address is not public; the operator may allow it with webhooks.allow_private"
            raise InvalidRequest(f"webhook.url: {reason}", errors={"webhook.url": [reason]})


def is_public(text: str) -> bool:
    """Return whether an IP address is public. Raises ValueError.

    An IPv6 address that contains an IPv4 one is not, nor is one where a cloud answers its own machines.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if not address.is_global or address.is_multicast or address.is_reserved or address in _METADATA:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    is_wrapped = address.ipv4_mapped or address.sixtofour or address.teredo
    return not (is_wrapped or address.is_site_local)


def look_up(url: str, *, allow_private: bool) -> list[Address]:
    """Return where to connect to, `MAX_ADDRESSES` at most.

    Raises:
        ForbiddenAddress: the host has private addresses only.
        NoResponse: it has none.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        host = (parts.hostname or "").encode("idna").decode()
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise NoResponse("its host is not a valid name") from None
    except OSError as error:
        raise NoResponse(f"not reached ({type(error).__name__})") from None
    allowed: list[Address] = [
        (family, address) for family, _, _, _, address in entries if allow_private or is_public(str(address[0]))
    ]
    if not allowed:
        raise ForbiddenAddress
    return allowed[:MAX_ADDRESSES]


def post(
    url: str, addresses: list[Address], headers: Mapping[str, str], body: bytes, *, seconds: float
) -> PostResponse:
    """Send a POST to the first of its addresses that takes it, and return the receiver's status.

    Raises NoResponse: the receiver gave no HTTP response in time.
    """
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    deadline = time.monotonic() + seconds
    try:
        with _connected(addresses, deadline) as plain:
            connection = _trust().wrap_socket(plain, server_hostname=host) if is_tls else plain
            with connection:
                connection.settimeout(_left(deadline))
                connection.sendall("\r\n".join(head).encode() + body)
                return _read(connection, deadline)
    except UnicodeError:
        raise NoResponse("its host is not a valid name") from None
    except ssl.SSLError as error:
        raise NoResponse(f"TLS failed ({error.reason or 'no trusted certificate'})") from None
    except TimeoutError:
        raise NoResponse("no response in time") from None
    except OSError as error:
        raise NoResponse(f"not reached ({type(error).__name__})") from None


def _connected(addresses: list[Address], deadline: float) -> socket.socket:
    failure: OSError = OSError("no address")
    for family, address in addresses:
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


def _read(connection: socket.socket, deadline: float) -> PostResponse:
    """Read the head of the response. Its body is not needed."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
        connection.settimeout(_left(deadline))
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            break
        head += received
    status = _STATUS.match(head)
    if status is None:
        raise NoResponse("no HTTP response")
    retry_after = _RETRY_AFTER.search(head)
    return PostResponse(int(status[1]), int(retry_after[1]) if retry_after else 0)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _trust() -> ssl.SSLContext:
    """Return the system's certificates, or those that `SSL_CERT_FILE` names."""
    return ssl.create_default_context()
