"""A batch as its record in Redis has it, and as clients see it; and the result of one of its lines."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.config.hours import Hours
from app.jobs.principal import Principal

_TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of a line, as a line of the output or of the errors. tokens: read, cached, written."""

    number: int
    text: str
    has_failed: bool
    tokens: tuple[int, int, int] = (0, 0, 0)


class Batch:
    """The record of a batch."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.id = values["id"]
        self.owner = values["owner"]
        self.principal = Principal.from_fields(values)
        self.endpoint = values["endpoint"]
        self.input_file_id = values["input_file_id"]
        self.output_file_id = values["output"]
        self.error_file_id = values["errors"]
        self.expires_at = float(values["expires_at"])
        self.created_at = float(values["created_at"])
        self.not_before = float(values.get("not_before", 0.0))
        self.lines = int(values["lines"])
        self.next_line = int(values["next_line"])
        self.files_ttl_seconds = int(values["files_ttl"])
        self.ending = values.get("ending")  # why its remaining lines are not submitted: cancelled, expired, failed

    @property
    def has_ended(self) -> bool:
        return self._values["status"] != "in_progress"

    @property
    def status(self) -> str:
        """The status as OpenAI names it."""
        if self.has_ended or self.ending is None:
            return self._values["status"]
        return "cancelling" if self.ending == "cancelled" else "finalizing"

    def may_submit(self, hours: Hours | None, now: float) -> bool:
        """Return whether its lines may be submitted now (Unix seconds). hours: None: always."""
        return now >= self.not_before and (hours is None or hours.include(now))

    def document(self, hours: Hours | None) -> dict[str, Any]:
        """Return OpenAI's object, and what it waits for. hours: in which lines are submitted; None: always."""
        values = self._values
        waits_until = self._waits_until(hours, time.time())
        faults = json.loads(values.get("faults", "[]"))
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": values["model"],
            "errors": {"object": "list", "data": faults} if faults else None,
            "input_file_id": self.input_file_id,
            "completion_window": values["completion_window"],
            "status": self.status,
            "output_file_id": values.get("output_file_id"),
            "error_file_id": values.get("error_file_id"),
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **{name: int(float(values[name])) if name in values else None for name in _TIMES},
            "request_counts": {name: self._number(name) for name in ("total", "completed", "failed")},
            "usage": {
                "input_tokens": self._number("input_tokens"),
                "input_tokens_details": {"cached_tokens": self._number("cached_tokens")},
                "output_tokens": self._number("output_tokens"),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self._number("input_tokens") + self._number("output_tokens"),
            },
            "metadata": json.loads(values["metadata"]),
            "not_before": int(self.not_before) if self.not_before else None,
            "hours": None if hours is None else str(hours),
            "waits_until": None if waits_until is None else math.ceil(waits_until),
        }

    def _waits_until(self, hours: Hours | None, now: float) -> float | None:
        """Return when its lines are submitted; None: now, or there are none left."""
        if self.has_ended or self.ending is not None or self.next_line >= self.lines:
            return None
        start = max(now, self.not_before)
        start = start if hours is None else hours.next_opening(start)
        return start if start > now else None

    def _number(self, name: str) -> int:
        return int(self._values.get(name, 0))
