"""Gives memory back to the system that would otherwise stay with the process for good: of large requests, of adapters.

A body of megabytes is in memory several times while it is read, checked and stored. The frames of an error that ends
the request wait for Python's collector, which runs once in thousands of objects here; the C library keeps what is freed
between pieces that are in use, for each of many threads. 52 requests of 3.8 MB left two processes with 310 MB; they had
begun with 85. A worker that loaded and unloaded an adapter of 19 MB kept as much once for each thread that had loaded
one, 240 MB in all. The numbers of the options are those of glibc's malloc.h; another C library has none of this, and
nothing happens.
"""

import ctypes
import gc
from collections.abc import Mapping
from typing import Any

LARGE_BYTES = 1_000_000
_M_ARENA_MAX, _ARENAS = -8, 2  # Python's lock lets one thread allocate at a time
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES = -3, 131_072  # glibc would raise the limit to 32 MB

_libc = ctypes.CDLL(None)


def keep_little() -> None:
    """Have the C library keep little of what is freed. Call it before there are threads."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, _ARENAS)
    own_pages_from(_OWN_PAGES_BYTES)


def own_pages_from(size: int) -> None:
    """Have the C library give pieces of so many bytes pages of their own, which go back when the piece is freed."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, size)
        _libc.mallopt(_M_TRIM_THRESHOLD, 2 * size)  # as glibc has it: else each smaller piece would come and go alone


def give_back_after(environ: Mapping[str, Any]) -> None:
    """Call it when a request has ended; it costs milliseconds where the body was large or of unknown length."""
    length = environ.get("CONTENT_LENGTH")
    if environ.get("HTTP_TRANSFER_ENCODING") or (length and int(length) > LARGE_BYTES):
        gc.collect()
        if hasattr(_libc, "malloc_trim"):
            _libc.malloc_trim(0)
