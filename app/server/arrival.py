"""How much of its next request a client has sent: looked up in the kernel's buffer, from which nothing is read.

The framing is that of RFC 9112, sections 2 to 6. What is unclear is for gunicorn's parser to reject.
"""

import fcntl
import re
import socket
import struct
import termios
from enum import Enum, auto

HEAD_BYTES = 16 * 1024  # of a head; a longer one is rare, and read by a thread
HELD_BYTES = 48 * 1024  # of a request; below the 64 KB that a connection's first window takes

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n")
_TLS = b"\x16\x03"  # how the first record of each version begins
_COUNT = struct.Struct("i")


class Arrival(Enum):
    """NOTHING, PART_OF_HEAD, PART_OF_BODY: more must come. WHOLE: a thread can read the request without waiting for
    the client. LONG: it is much to read, the kernel may not hold all of it, or its end is not known in advance. CLOSED:
    by the client, or to be closed: it speaks TLS, and would wait for an answer to that.
    """

    NOTHING = auto()
    PART_OF_HEAD = auto()
    PART_OF_BODY = auto()
    WHOLE = auto()
    LONG = auto()
    CLOSED = auto()


def arrival(client: socket.socket, ahead: bytes = b"") -> Arrival:
    """Look at what a client has sent.

    Args:
        client: A socket without TLS.
        ahead: What the server has read of this request already, behind the one before.
    """
    seen = ahead
    try:
        waiting = client.recv(HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if not waiting:
            return Arrival.CLOSED
        seen += waiting
    except BlockingIOError:
        if not seen:
            return Arrival.NOTHING
    except OSError:
        return Arrival.CLOSED
    if seen.startswith(_TLS):
        return Arrival.CLOSED
    end = seen.find(b"\r\n\r\n")
    if end < 0:
        is_malformed = seen.count(b"\n") != seen.count(b"\r\n")
        return Arrival.LONG if is_malformed or len(seen) >= HEAD_BYTES else Arrival.PART_OF_HEAD
    length = _body_bytes(seen[: end + 2].lower())
    if length is None:
        return Arrival.LONG
    total = end + 4 + length
    if total > HELD_BYTES:
        return Arrival.LONG
    is_whole = total <= len(seen) or total <= len(ahead) + _unread_bytes(client)
    return Arrival.WHOLE if is_whole else Arrival.PART_OF_BODY


def _body_bytes(head: bytes) -> int | None:
    """Return the length of the body behind a head in lower case; None where only reading it shows its end."""
    if b"\ntransfer-encoding" in head or b"\nexpect" in head:
        return None
    if b"content-length" not in head:
        return 0
    match = _LENGTH.search(head)
    return None if match is None or head.count(b"\ncontent-length") != 1 else int(match[1])


def _unread_bytes(client: socket.socket) -> int:
    count: int = _COUNT.unpack(fcntl.ioctl(client, termios.FIONREAD, _COUNT.pack(0)))[0]
    return count
