"""The report of `GET /usage`: sums of the ledger as rows, and as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from app.errors import InvalidRequest
from app.jobs.redis_client import RedisClient
from app.ledger.usage import Counters, Group, UsageSum, read_usage, summed

MAX_ROWS = 10_000  # some megabytes of JSON
COUNTED = (
    "requests",
    "succeeded",
    "failed",
    "canceled",
    "expired",
    "cache_hits",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "compute_seconds",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Usage from the first to the last day, both included, with a row for each combination of the groups' values."""

    first: date
    last: date
    by: Sequence[Group]
    sums: Sequence[UsageSum]

    def to_json(self) -> dict[str, Any]:
        """Return what `UsageReportSchema` dumps."""
        total = sum((one.counters for one in self.sums), Counters())
        rows = [_texts(one) | _numbers(one.counters) for one in self.sums]
        return {
            "object": "usage",
            "first": self.first,
            "last": self.last,
            "by": self.by,
            "data": rows,
            "total": _numbers(total),
        }

    def to_csv(self) -> str:
        """Return the rows under a line with the names of the columns (RFC 4180)."""
        columns = [name for group in self.by for name in _columns_of(group)]
        written = io.StringIO()
        writer = csv.DictWriter(written, [*columns, *COUNTED])
        writer.writeheader()
        for one in self.sums:
            writer.writerow({name: _no_formula(text) for name, text in _texts(one).items()} | _numbers(one.counters))
        return written.getvalue()


def usage_report(
    client: RedisClient, first: date, last: date, by: Sequence[Group], *, owner: str | None
) -> UsageReport:
    """Return the usage of one API key, or of all where `owner` is None.

    Raises InvalidRequest: there are more than `MAX_ROWS` rows.
    """
    by = list(dict.fromkeys(by))
    sums = summed(read_usage(client, first, last, owner=owner), by)
    if len(sums) > MAX_ROWS:
        advice = f"These are {len(sums)} rows, and {MAX_ROWS} is the most; ask for fewer groups, or for fewer days."
        raise InvalidRequest(f"by: {advice}", errors={"by": [advice]})
    return UsageReport(first=first, last=last, by=by, sums=sums)


def _columns_of(group: Group) -> list[str]:
    return ["key", "key_name"] if group is Group.KEY else [str(group)]


def _texts(one: UsageSum) -> dict[str, str]:
    values = {str(group): value for group, value in one.values.items()}
    return values | ({"key_name": one.key_name} if Group.KEY in one.values else {})


def _numbers(counters: Counters) -> dict[str, int | float]:
    return {name: getattr(counters, name) for name in COUNTED}


def _no_formula(text: str) -> str:
    """Clients choose labels, and a spreadsheet would compute one that looks like a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
