"""Bounds the shape of JSON that clients send: how deep it nests, and how many members its objects have.

What reads a value later calls itself for each level, or makes an error of each member; a body within its limit of bytes
could hold a million of either.
"""

from typing import Any

MAX_DEPTH = 100  # levels of objects and lists; a schema takes two for each of its own
MAX_MEMBERS = 100_000  # of all objects together; 4,096 messages with calls have fewer


_TOO_MANY = f"made of more than {MAX_MEMBERS} members of objects"


def fault_of_text(body: bytes) -> str | None:
    """Return what is too much of a JSON text before it is parsed: that holds up every other thread, 0.25 s for 300,000
    members.

    It counts names that a colon follows at once, and texts that begin with one. A quote in a text is escaped, so it is
    not counted.
    """
    if body.count(b":") <= MAX_MEMBERS:  # a quarter of the time of what follows
        return None
    return _TOO_MANY if body.count(b'":') - body.count(b'\\":') > MAX_MEMBERS else None


def fault_of_shape(value: Any) -> str | None:
    """Return what is too much of a JSON value, as the end of a sentence; None: nothing. Takes 0.1 µs for each value."""
    level, depth, members = [value], 0, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        members += sum(len(one) for one in level if isinstance(one, dict))
        if members > MAX_MEMBERS:
            return _TOO_MANY
        parts = (one.values() if isinstance(one, dict) else one for one in level)
        level = [part for many in parts for part in many if isinstance(part, dict | list)]
    return None
