"""Which addresses webhooks may go to: a URL of a client's choice must not lead to what only this machine can reach."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from app.config.settings import WebhooksConfig
from app.errors import InvalidRequest
from app.jobs.job import Webhook

Address = tuple[socket.AddressFamily, tuple[Any, ...]]  # as `socket.connect` takes it


class ForbiddenAddress(Exception):
    """A host has no address that webhooks may go to."""


def refuse_unsendable(webhook: Webhook, config: WebhooksConfig) -> None:
    """What can be seen without asking for names. Raises InvalidRequest."""
    reason = None
    if config.secret is None:
        reason = "no webhooks are sent here: the operator must set webhooks.secret"
        raise InvalidRequest(f"webhook: {reason}", errors={"webhook": [reason]})
    host = urlsplit(webhook.url).hostname or ""
    with contextlib.suppress(ValueError):  # no address but a name, which is looked up when it is sent to
        if not (config.allow_private or is_public(host)):
            reason = "this address is not public; the operator may allow it with webhooks.allow_private"
            raise InvalidRequest(f"webhook.url: {reason}", errors={"webhook.url": [reason]})


def addresses_of(host: str, port: int, *, allow_private: bool) -> Iterator[Address]:
    """Where to connect to. Raises ForbiddenAddress where all are private, OSError where there are none."""
    found = socket.getaddrinfo(host.encode("idna").decode(), port, type=socket.SOCK_STREAM)
    allowed = [(family, address) for family, _, _, _, address in found if allow_private or is_public(str(address[0]))]
    if not allowed:
        raise ForbiddenAddress
    yield from allowed


def is_public(text: str) -> bool:
    """Raises ValueError where the text is no address. An IPv6 address that holds an IPv4 one is none of the public."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    is_wrapped = address.ipv4_mapped or address.sixtofour or address.teredo
    return not (is_wrapped or address.is_site_local)
