"""How a worker writes what its sequences have produced: all of a step in one call of `lua/publish.lua`."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.record import RECORD_FIELDS
from app.jobs.redis_client import RedisClient, script

FENCED, WRITTEN, MISSING = 0, 1, -1  # what becomes of an output


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputWrite:
    """A delta, an end, or both, of the job that `token` was claimed with.

    delta, tokens: JSON of the event's data and of its token ids; no delta: ''. before, after: tokens published before,
    and after, the delta. is_followed: the hint shall carry the delta. end: JSON of the end event; not the end: ''.
    end_fields: field, value, field, value, ... of the record's outcome.
    """

    job_id: str
    token: int
    delta: str = ""
    tokens: str = "[]"
    before: int = 0
    after: int = 0
    is_followed: bool = False
    end: str = ""
    end_fields: Sequence[str] = ()


class OutputWriter:
    """ttl_seconds: how long a job is kept that says nothing of it."""

    def __init__(self, client: RedisClient, *, model: str, ttl_seconds: int) -> None:
        self._publish = script(client, "publish")
        self._indexes = [keys.running(model), keys.ended(model), keys.service_time(model)]
        self._head: list[str | int] = [ttl_seconds, keys.NOTIFICATIONS_CHANNEL, ",".join(RECORD_FIELDS)]

    def write(self, outputs: Sequence[OutputWrite]) -> list[int]:
        """What became of each: `WRITTEN`, `FENCED` (another worker has the job), or `MISSING`: Redis lacks tokens from
        before its delta, and nothing of it was written. May be sent again: what is there is not written twice.
        """
        where, what = [*self._indexes], [*self._head]
        for output in outputs:
            where += [keys.job(output.job_id), keys.events(output.job_id)]
            what += [output.job_id, output.token, output.delta, output.tokens, output.before, output.after]
            what += [int(output.is_followed), output.end, len(output.end_fields), *output.end_fields]
        told: list[int] = self._publish(keys=where, args=what)
        return told
