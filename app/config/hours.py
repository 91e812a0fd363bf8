"""Hours of the day, as a clock on the wall shows them: `20:00-06:00`."""

import functools
import re
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marshmallow import ValidationError

_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_MINUTE = 60
_LONGEST = 50 * 60  # minutes until the next opening, where a change of the clock leaves out one


@dataclass(frozen=True, slots=True)
class Hours:
    """From `start` up to `end`; over midnight where the end is before the start.

    The clock decides: where it is set forward over the start, the hours begin with the change, and where it is set back
    into the hours, they are longer.
    """

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str) -> "Hours":
        """Raises ValueError: there are no such hours, or no such zone."""
        match = _HOURS.fullmatch(text)
        if match is None or match.group(1, 2) == match.group(3, 4):
            raise ValueError("no hours")
        start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
        return cls(time(start_hour, start_minute), time(end_hour, end_minute), zone_of(zone))

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.zone.key}"

    def include(self, moment: float) -> bool:
        """moment: Unix seconds."""
        clock = datetime.fromtimestamp(moment, self.zone).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def next_opening(self, moment: float) -> float:
        """Return the first moment that they include: this one, or the beginning of a later minute."""
        return moment if self.include(moment) else _opening_after(self, int(moment // _MINUTE))


@functools.lru_cache(maxsize=256)
def _opening_after(hours: Hours, minute: int) -> float:
    """Look at every minute: no arithmetic on clocks is true on the day that they change."""
    later = (number * float(_MINUTE) for number in range(minute + 1, minute + 1 + _LONGEST))
    return next(moment for moment in later if hours.include(moment))


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):  # a name may be that of a folder, or no name at all
        raise ValueError("no such time zone") from None


def check_hours(text: str) -> None:
    """Raises ValidationError."""
    try:
        Hours.parse(text, "UTC")
    except ValueError:
        raise ValidationError("no hours") from None


def check_zone(name: str) -> None:
    """Raises ValidationError."""
    try:
        zone_of(name)
    except ValueError:
        raise ValidationError("no such time zone") from None
