from typing import Any

import pytest

from app.api.live.changes import encode_changes
from tests.app.api.sse_reading import parse

ROW, OTHER = {"tokens": 1}, {"tokens": 2}


@pytest.mark.parametrize(
    ("before", "now", "sent"),
    [
        ({}, {"waiting": ["a"], "rows": {"a": ROW}}, {"waiting": ["a"], "rows": {"a": ROW}}),
        ({"waiting": ["a"], "rows": {"a": ROW}}, {"waiting": ["a"], "rows": {"a": ROW}}, None),
        ({"waiting": ["a"], "rows": {"a": ROW}}, {"waiting": [], "rows": {}}, {"waiting": []}),
        ({"n": 1, "rows": {"a": ROW, "b": ROW}}, {"n": 1, "rows": {"a": ROW, "b": OTHER}}, {"rows": {"b": OTHER}}),
        ({"n": 1, "m": 1}, {"n": 1, "m": 2}, {"m": 2}),
    ],
)
def test_only_what_has_changed_is_sent(
    before: dict[str, Any], now: dict[str, Any], sent: dict[str, Any] | None
) -> None:
    events = parse(encode_changes(before, now).decode())
    assert [event.json for event in events] == ([] if sent is None else [sent])
    assert all(event.name == "change" for event in events)
