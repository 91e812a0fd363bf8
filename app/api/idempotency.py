"""The header `Idempotency-Key`: a request that comes again under one gets the job which it made the first time."""

import re

from flask import request

from app.api.request_parser import invalid_request

HEADER = "Idempotency-Key"
MAX_CHARACTERS = 255
_KEY = re.compile(rf"[!-~]{{1,{MAX_CHARACTERS}}}")

PARAMETER = {
    "in": "header",
    "name": HEADER,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": "^[!-~]+$"},
    "description": "Of your choice, a UUID for example. The same request with the same key makes no second job: it is "
    "answered with the first one's outcome, as long as that job is kept. Another request with the same key gets 409. "
    "With a key, `on_disconnect` is `continue` unless the body says otherwise.",
}


def idempotency_key() -> str | None:
    """The current request's. Raises InvalidRequest, naming the header."""
    key = request.headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise invalid_request(
            {HEADER: [f"Must be 1 to {MAX_CHARACTERS} visible ASCII characters, no spaces; send a UUID, for example."]}
        )
    return key
