"""Uploads that fill the memory or the time of an API process."""

import time
from collections import Counter

from tests.abuse.attacker import Outcomes, Target

_BOUNDARY = b"x"
_TYPE = {"Content-Type": "multipart/form-data; boundary=x"}
_LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "p"}}'.ljust(1000) + b"\n"
_FILE_BYTES = 16 * 1024 * 1024


def empty_lines(target: Target) -> Outcomes:
    """A form of 15 million empty lines."""
    return _post_forms(target, b"\r\n" * 15_000_000)


def files(target: Target) -> Outcomes:
    """Files of 16 MB, as many as the service takes. They are deleted in the end."""
    head = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head += b'--x\r\nContent-Disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n'
    outcomes = _post_forms(target, head + _LINE * (_FILE_BYTES // len(_LINE)) + b"\r\n--x--\r\n")
    with target.client() as http:
        for file in http.get("/v1/files", params={"limit": 10_000}).json()["data"]:
            http.delete(f"/v1/files/{file['id']}")
    return outcomes


def _post_forms(target: Target, form: bytes) -> Outcomes:
    deadline = time.monotonic() + target.seconds
    outcomes: Outcomes = Counter()
    with target.client() as http:
        while time.monotonic() < deadline:
            outcomes[str(http.post("/v1/files", headers=_TYPE, content=form).status_code)] += 1
    return outcomes
