"""Media types, and how a value becomes a JSON response."""

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

JSON = "application/json"
CSV = "text/csv"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream"
PLAIN_TEXT = "text/plain"


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    """Return `value` as JSON in UTF-8, without a line end: `langchain-llm-api` returns the body unchanged."""
    return Response(write_json(value), status, headers, content_type=media_type)


def write_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
