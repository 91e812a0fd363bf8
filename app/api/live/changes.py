"""What has changed between two states of a view, as server-sent events."""

from collections.abc import Mapping
from typing import Any

from app.api.event_stream import write_event
from app.api.json_response import write_json

ROWS = "rows"
"""The section whose members are compared one by one; a row that no list names any more is not sent again."""


def encode_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> bytes:
    """Return an event `change` with the sections that differ, of `rows` only those that differ; nothing: no bytes."""
    changed = {name: value for name, value in now.items() if name != ROWS and before.get(name) != value}
    known = before.get(ROWS, {})
    rows = {key: row for key, row in now.get(ROWS, {}).items() if known.get(key) != row}
    if rows:
        changed[ROWS] = rows
    return write_event(write_json(changed), event="change") if changed else b""


def encode_trouble(detail: str) -> bytes:
    """Return an event `trouble`: the view cannot be read at the moment."""
    return write_event(write_json({"detail": detail}), event="trouble")
