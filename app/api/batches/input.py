"""Checks a file before its batch begins: whether each line has a `custom_id` of its own, to find its result."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from app.api.json_shape import fault_of_shape
from app.api.schemas.fields import is_unicode

MAX_LINES = 50_000  # as OpenAI's API has it
MAX_CUSTOM_ID = 512  # characters
_MAX_FAULTS = 20  # reported of one file
_EXAMPLE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}'


@dataclass(slots=True)
class Inspection:
    """lines: of the file. requests: lines that are not blank. faults: why the batch cannot begin, in OpenAI's form."""

    lines: int = 0
    requests: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append({"code": code, "message": message, "line": line, "param": param})


def inspect(texts: Iterable[str]) -> Inspection:
    """Inspect the lines of a file. Other faults of a line become its result."""
    inspection, seen = Inspection(), set[str]()
    for text in texts:
        inspection.lines += 1
        if not text.strip():
            continue
        inspection.requests += 1
        try:
            custom_id = str(read_line(text)["custom_id"])
        except ValueError as error:
            inspection.add("invalid_line", f"{error}; each line is an object such as {_EXAMPLE}", inspection.lines)
            continue
        if custom_id in seen:
            inspection.add("duplicate_custom_id", "an earlier line has this custom_id", inspection.lines, "custom_id")
        seen.add(custom_id)
    if not inspection.requests:
        inspection.add("empty_file", "the file holds no requests", None)
    if inspection.requests > MAX_LINES:
        inspection.add("too_many_requests", f"a batch is of {MAX_LINES} requests at most; make several", None)
    return inspection


def read_line(text: str) -> dict[str, Any]:
    """Parse a line that has a `custom_id`. Raises ValueError with a sentence for the client."""
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):  # ValueError: an integer of thousands of digits, too
        raise ValueError("this line is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("this line is JSON, but no object")
    if fault := fault_of_shape(value):
        raise ValueError(f"this line is JSON that is {fault}")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID or not is_unicode(custom_id):
        raise ValueError(f"this line has no custom_id, a text of 1 to {MAX_CUSTOM_ID} characters")
    return value
