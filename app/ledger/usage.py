"""Reads the usage of ended jobs by day, model, key and label, as `lua/usage.lua` counts it.

A job is counted in the step that makes its record final. So the sums over rows equal the sums over the records of the
same jobs, after any fault, and a job that several workers ran counts once.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from enum import StrEnum

from app.jobs import keys
from app.jobs.redis_client import RedisClient

OTHER_LABELS = "other"  # the labels of a key beyond the 100th of a day and model, in `lua/usage.lua`
_ROWS_PER_CALL = 1000
_UNIX_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Counters:
    """What jobs have used. The order is that of the numbers in Redis.

    succeeded, failed, canceled, expired: jobs by their outcome. cache_hits: jobs that an earlier job's output answered
    (`cache.ttl`); their tokens are counted like any other's, those of the prompt as cached too. compute_microseconds:
    how long workers ran the jobs, lost attempts included.
    """

    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    compute_microseconds: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def requests(self) -> int:
        return self.succeeded + self.failed + self.canceled + self.expired

    @property
    def compute_seconds(self) -> float:
        return self.compute_microseconds / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What the jobs of one key, model and label that ended on one day (UTC) have used. label: "" without one."""

    day: date
    model: str
    owner: str
    tenant: str
    key_name: str
    label: str
    counters: Counters


class Group(StrEnum):
    """What rows may be summed by."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    TENANT = "tenant"
    LABEL = "label"


_VALUE_OF: dict[Group, Callable[[UsageRow], str]] = {
    Group.DAY: lambda row: row.day.isoformat(),
    Group.MODEL: lambda row: row.model,
    Group.KEY: lambda row: row.owner,
    Group.TENANT: lambda row: row.tenant,
    Group.LABEL: lambda row: row.label,
}


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The sum over rows with the same values of some groups. key_name: the latest one of the rows' key."""

    values: dict[Group, str]
    key_name: str
    counters: Counters


def read_usage(client: RedisClient, first: date, last: date, *, owner: str | None = None) -> Iterator[UsageRow]:
    """Yield the rows from the first to the last day, both included, by day. owner: only the rows of this key."""
    match = None if owner is None else f"{_glob_escaped(json.dumps([owner])[:-1])},*"
    for entry in client.zrangebyscore(keys.USAGE, _number(first), _number(last)):
        number, _, model = entry.partition(" ")
        day = date.fromordinal(int(number) + _UNIX_EPOCH)
        for field, value in client.hscan_iter(keys.usage(int(number), model), match=match, count=_ROWS_PER_CALL):
            if field.startswith("["):  # the others count labels
                row_owner, tenant, key_name, label = json.loads(field)
                yield UsageRow(
                    day=day,
                    model=model,
                    owner=row_owner,
                    tenant=tenant,
                    key_name=key_name,
                    label=label,
                    counters=Counters(*map(int, value.split())),
                )


def summed(rows: Iterable[UsageRow], by: Sequence[Group]) -> list[UsageSum]:
    """Return a sum for each combination of the groups' values, in their order."""
    sums: dict[tuple[str, ...], tuple[str, Counters]] = {}
    for row in rows:
        values = tuple(_VALUE_OF[group](row) for group in by)
        _, counters = sums.get(values, ("", Counters()))
        sums[values] = row.key_name, counters + row.counters
    return [
        UsageSum(dict(zip(by, values, strict=True)), key_name, counters)
        for values, (key_name, counters) in sorted(sums.items())
    ]


def total(rows: Iterable[UsageRow]) -> Counters:
    """Return the sum over all rows."""
    return sum((row.counters for row in rows), Counters())


def _number(day: date) -> int:
    return day.toordinal() - _UNIX_EPOCH


def _glob_escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "[]*?^\\" else character for character in text)
