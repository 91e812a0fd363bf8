"""What is looked at in a file before its batch begins: whether each answer could be told apart from all others."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from app.api.schemas.fields import is_unicode

MAX_LINES = 50_000  # as OpenAI's API has it
MAX_CUSTOM_ID = 512  # characters
_MAX_FAULTS = 20  # told of one file
_EXAMPLE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}'


@dataclass(slots=True)
class Inspection:
    """lines: of the file. requests: those not blank. faults: what forbids to begin, as OpenAI tells it."""

    lines: int = 0
    requests: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append({"code": code, "message": message, "line": line, "param": param})


def inspect(texts: Iterable[str]) -> Inspection:
    """What else is wrong with a line is told in its own answer."""
    found, seen = Inspection(), set[str]()
    for text in texts:
        found.lines += 1
        if not text.strip():
            continue
        found.requests += 1
        try:
            custom_id = str(read_line(text)["custom_id"])
        except ValueError as error:
            found.add("invalid_line", f"{error}; each line is an object such as {_EXAMPLE}", found.lines)
            continue
        if custom_id in seen:
            found.add("duplicate_custom_id", "an earlier line has this custom_id", found.lines, "custom_id")
        seen.add(custom_id)
    if not found.requests:
        found.add("empty_file", "the file holds no requests", None)
    if found.requests > MAX_LINES:
        found.add("too_many_requests", f"a batch is of {MAX_LINES} requests at most; make several", None)
    return found


def read_line(text: str) -> dict[str, Any]:
    """A line whose answer can be told by its `custom_id`. Raises ValueError with a sentence about it."""
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):  # ValueError: an integer of thousands of digits, too
        raise ValueError("this line is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("this line is JSON, but no object")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID or not is_unicode(custom_id):
        raise ValueError(f"this line has no custom_id, a text of 1 to {MAX_CUSTOM_ID} characters")
    return value
