"""The keys of the configuration about batches."""

from dataclasses import dataclass
from typing import Annotated

from app.config.hours import Hours, check_hours, check_zone
from app.config.schema import text


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesConfig:
    hours: Annotated[
        str | None,
        text(
            "The hours in which lines of batches are submitted, for example `20:00-06:00`; outside of them lines wait, "
            "and those that run end. null: always.",
            "hours such as 20:00-06:00, whose start is not their end, or null",
            check_hours,
            nullable=True,
        ),
    ] = None
    time_zone: Annotated[
        str,
        text(
            "The time zone of `batches.hours`.", "a name of the IANA database such as Europe/Berlin or UTC", check_zone
        ),
    ] = "UTC"

    @property
    def opening(self) -> Hours | None:
        """The hours with their zone; None: always."""
        return None if self.hours is None else Hours.parse(self.hours, self.time_zone)
