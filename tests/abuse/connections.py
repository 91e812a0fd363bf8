"""Connections that cost the client nothing."""

from collections import Counter

from tests.abuse.attacker import Outcomes, Target, hold
from tests.abuse.service import ATTACKER_KEY

_HEAD = (
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    + f"Authorization: Bearer {ATTACKER_KEY}\r\n".encode()
)


def slow_heads(target: Target) -> Outcomes:
    """1,100 heads without a key, one line a second."""
    return hold(target, 1100, b"GET /generate HTTP/1.1\r\nHost: localhost\r\n", b"X-More: 1\r\n", 1)


def slow_bodies(target: Target) -> Outcomes:
    """1,100 bodies of 4 MB, a byte a second."""
    return hold(target, 1100, _HEAD + b"Content-Length: 4000000\r\n\r\n{", b" ", 1)


def stay_open(target: Target) -> Outcomes:
    """60 connections a second that ask to be closed, and stay."""
    outcomes: Outcomes = Counter()
    one_second = Target(target.url, 1.0)
    for _ in range(max(1, round(target.seconds))):
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        outcomes += hold(one_second, 60, request, b"", 0.5)
    return outcomes
