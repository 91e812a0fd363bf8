"""What makes two requests the same one, sent twice: the digests of an idempotency key and of what came with it."""

import hashlib
import json

from app.jobs.job import JobRequest


def digest_of(idempotency_key: str) -> str:
    return hashlib.sha256(idempotency_key.encode()).hexdigest()


def fingerprint(request: JobRequest, model: str) -> str:
    """Digest the request and the model.

    Left out: `stream`, which does not make a different request, and the time that follows from a delay.
    """
    left_out = {"stream"} if request.delay_seconds is None else {"stream", "not_before"}
    asked = {name: value for name, value in request.to_json().items() if name not in left_out}
    return hashlib.sha256(json.dumps([model, asked], sort_keys=True).encode()).hexdigest()
