"""The field `not_before`: a time, in one of three notations."""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from marshmallow import ValidationError, fields

from app.api.schemas.fields import TextField

EARLIEST, LATEST = 1_000_000_000, 253_402_300_799  # in 2001, and the end of the year 9999
_DELAY = re.compile(r"\+([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_FORMS = 'a time with an offset such as "2030-01-31T22:00:00Z", Unix seconds, or seconds from now such as "+3600"'


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTime:
    """When a job or a batch may start.

    Args:
        at: Unix seconds; a time in the past is one, too.
        delay_seconds: what the client has sent instead of a time; the same request sent again has another `at`.
    """

    at: float
    delay_seconds: float | None = None


class NotBefore(fields.Field[StartTime]):
    """RFC 3339 with an offset, Unix seconds as a number, or `+` and seconds from now."""

    def __init__(self, description: str) -> None:
        super().__init__(
            metadata={
                "description": f"{description} One of three: {_FORMS}.",
                "anyOf": [
                    {"type": "number", "minimum": EARLIEST, "maximum": LATEST},
                    {"type": "string", "format": "date-time"},
                    {"type": "string", "pattern": f"^{_DELAY.pattern}$"},
                    {"type": "null"},
                ],
            }
        )
        self._text = TextField()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> StartTime:
        if type(value) in (int, float):
            if not EARLIEST <= value <= LATEST:
                raise ValidationError(
                    f'A number is Unix seconds. For seconds from now, send a text such as "+{value}".'
                )
            return StartTime(at=float(value))
        text = self._text.deserialize(value) or ""
        if delay := _DELAY.fullmatch(text):
            seconds = float(delay[1])
            return StartTime(at=time.time() + seconds, delay_seconds=seconds)
        return StartTime(at=_time(text))


def _time(text: str) -> float:
    """Return Unix seconds. Raises ValidationError."""
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        raise ValidationError(f"Must be {_FORMS}.") from None
    if moment.tzinfo is None:
        raise ValidationError("A time needs an offset: end it with Z for UTC, or with one such as +02:00.")
    return min(max(0.0, seconds), float(LATEST))
