"""Reads the body of a request: within its limit, decompressed, as a JSON object."""

import json
import re
import zlib
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from app.api.json_shape import fault_of_shape, fault_of_text
from app.api.schemas.request_schema import RequestSchema
from app.config.settings import Config
from app.errors import MalformedRequest, UnsupportedEncoding

CODINGS = ("gzip", "deflate")
"""Values of `Content-Encoding` that are decompressed."""
BODY_LIMIT, _FILE_LIMIT = "server.max_body_bytes", "files.max_bytes"
_FILES = "/v1/files"
_FORM_BYTES = 65_536  # what surrounds the file in a request
_PLAIN = ("", "identity")
_ANY_HEADER = zlib.MAX_WBITS | 32  # gzip's or zlib's
_NO_HEADER = -zlib.MAX_WBITS  # what some clients send as "deflate"
_CURES = [
    (re.compile(r"\n"), 'a text ends on its line: close it with ", or write \\n for a new line'),
    (re.compile(r"\s*(True|False|None)\b"), "JSON writes true, false and null"),
    (re.compile(r"\s*\.\.\."), "write parameters instead of the dots, or nothing"),
    (re.compile(r"\s*(//|/\*|#)"), "JSON has no comments"),
    (re.compile(r"\s*'"), "JSON writes texts between \", not between '"),
    (re.compile(r"\s*or\s"), "write one of the two"),
    (re.compile(r",\s*[}\]]"), "remove the last comma"),
    (re.compile(r"\\"), r"in JSON a backslash of a text is written \\"),
]
"""What people write that is not JSON, where a parser stops at it, and what to write instead."""


def body_limit(path: str, config: Config) -> tuple[int, str]:
    """Return the most bytes that the body of a request to this path may have, and the key of the configuration."""
    if path.startswith(_FILES):
        return config.files.max_bytes + _FORM_BYTES, _FILE_LIMIT
    return config.server.max_body_bytes, BODY_LIMIT


def read_json(req: Request, schema: RequestSchema) -> dict[str, Any]:
    """Return the JSON object in the body, with or without a byte order mark.

    Args:
        schema: what the object will be loaded with; errors show an example for it.

    Raises:
        MalformedRequest, UnsupportedEncoding, and werkzeug's RequestEntityTooLarge.
    """
    body = _read(req)
    if fault := fault_of_text(body):
        raise MalformedRequest(f"the body is JSON that is {fault}; make it simpler")
    try:
        value = json.loads(body.decode("utf-8-sig"))  # decoded here: json.loads would let lone surrogates through
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8", schema) from None
    except json.JSONDecodeError as error:
        where = (
            f"{error.msg}, line {error.lineno} column {error.colno}{_cure(error)}" if body.strip() else "it is empty"
        )
        raise _malformed(f"the body is not JSON ({where})", schema) from None
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        reason = "the body is JSON that is nested too deeply or has numbers that are too long"
        raise _malformed(reason, schema) from None
    if not isinstance(value, dict):
        raise _malformed("the body is JSON, but not an object", schema)
    if fault := fault_of_shape(value):
        raise MalformedRequest(f"the body is JSON that is {fault}; make it simpler")
    return value


def _cure(error: json.JSONDecodeError) -> str:
    """Return what to write instead of what stands where the parser stopped, or of the comma before it."""
    comma = error.doc.rfind(",", 0, error.pos)
    start = error.pos if comma == -1 or error.doc[comma + 1 : error.pos].strip() else comma
    matches = (cure for wrong, cure in _CURES if wrong.match(error.doc, error.pos) or wrong.match(error.doc, start))
    return next((f": {cure}" for cure in matches), "")


def _malformed(reason: str, schema: RequestSchema) -> MalformedRequest:
    return MalformedRequest(
        f"{reason}; send a JSON object, for example {json.dumps(schema.example)}, with the header Content-Type: "
        "application/json"
    )


def require_plain(req: Request) -> None:
    """Raise UnsupportedEncoding if the body is compressed, where it is read in pieces, as a form."""
    if _coding_of(req) not in _PLAIN:
        raise UnsupportedEncoding("a form may not have a Content-Encoding; send it without")


def _coding_of(req: Request) -> str:
    return str(req.environ.get("HTTP_CONTENT_ENCODING", "")).strip().lower().removeprefix("x-")


def _read(req: Request) -> bytes:
    coding, limit = _coding_of(req), req.max_content_length
    assert limit is not None, "the application sets it for every request"
    if coding not in (*_PLAIN, *CODINGS):
        raise UnsupportedEncoding(
            f"the Content-Encoding of the body is not supported; send it without, or as {' or '.join(CODINGS)}"
        )
    body = req.get_data(cache=False)
    if req.content_length is None and len(body) >= limit:
        raise RequestEntityTooLarge  # a chunked body: werkzeug cuts it off at the limit without an error
    return body if coding in _PLAIN else _decompressed(body, coding, limit)


def _decompressed(body: bytes, coding: str, limit: int) -> bytes:
    try:
        try:
            return _inflated(body, _ANY_HEADER, limit)
        except zlib.error:
            if coding != "deflate":
                raise
            return _inflated(body, _NO_HEADER, limit)
    except (zlib.error, EOFError):
        raise MalformedRequest(
            f"the body is not what its Content-Encoding, {coding}, says, or it is cut off; send it without the header "
            "if it is not compressed"
        ) from None


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    """Raises zlib.error; EOFError if the body is cut off; RequestEntityTooLarge, before more memory is used."""
    parts: list[bytes] = []
    left = limit
    while body:  # gzip allows several streams one after the other
        stream = zlib.decompressobj(window)
        parts.append(stream.decompress(body, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise RequestEntityTooLarge
        if not stream.eof:
            raise EOFError
        body = stream.unused_data
    return b"".join(parts)
