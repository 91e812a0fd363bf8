"""Who asks: with `auth.api_keys` set, every route but the open ones wants one of the keys as a bearer token."""

import contextlib
import hashlib
import hmac
from collections.abc import Iterator, Sequence

from flask import Flask, g, request

from app.errors import Unauthorized

OPEN_PATHS = frozenset({"/healthz", "/check"})
ANONYMOUS = "anonymous"
_OWNER_DIGITS = 24  # hex digits: 96 bits, beyond collision; the key itself appears nowhere in Redis


def register(app: Flask, api_keys: Sequence[str]) -> None:
    """Without keys everybody is `ANONYMOUS`, and sees the jobs of everybody."""
    digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]

    def identify() -> None:
        g.owner = ANONYMOUS
        if digests and request.path not in OPEN_PATHS:
            g.owner = _owner(request.headers.get("Authorization", ""), digests)

    app.before_request(identify)


def current_owner() -> str:
    """Whose job this request makes, and whose jobs it may see."""
    owner: str = g.owner
    return owner


@contextlib.contextmanager
def acting_for(owner: str) -> Iterator[None]:
    """What is done in this block, outside of any request, is done for them. It needs an application's context."""
    g.owner = owner
    yield


def _owner(authorization: str, digests: Sequence[bytes]) -> str:
    """Raises Unauthorized. Compares with every key, in constant time: the answer's delay tells nothing."""
    scheme, _, token = authorization.partition(" ")
    presented = hashlib.sha256(token.strip().encode("latin-1")).digest()  # latin-1: WSGI's spelling of bytes
    known = [hmac.compare_digest(presented, digest) for digest in digests]
    if scheme.lower() != "bearer" or not any(known):
        raise Unauthorized("this server wants an API key; send the header Authorization: Bearer <key>")
    return f"key-{presented.hex()[:_OWNER_DIGITS]}"
