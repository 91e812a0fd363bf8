"""Writes the output of a worker's jobs to Redis: all of a step in one call of `lua/publish.lua`."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.events import Delta, End, encode_delta, encode_end
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.record import RECORD_FIELDS, compact_json
from app.jobs.redis_client import RedisClient, script
from app.jobs.sharing import DEFAULT_SHARING, Sharing

FENCED, WRITTEN, MISSING = 0, 1, -1  # the verdicts on an output


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputWrite:
    """A delta, an end, or both, of the job that `token` was claimed with.

    before: tokens of the job that were published before the delta. is_followed: the notification carries the delta.
    end_fields: field, value, field, value, ... of the record's outcome.
    """

    job_id: str
    token: int
    delta: Delta | None = None
    before: int = 0
    is_followed: bool = False
    end: End | None = None
    end_fields: Sequence[str] = ()


class OutputWriter:
    """ttl_seconds: how long a job is kept that has no `ttl` of its own."""

    def __init__(
        self,
        client: RedisClient,
        *,
        model: str,
        ttl_seconds: int,
        sharing: Sharing = DEFAULT_SHARING,
        ledger: LedgerLimits = LedgerLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._publish = script(client, "publish")
        self._indexes = [keys.running(model), keys.ended(model)]
        self._head: list[str | int] = [
            sharing.order_of(model),
            ledger.kept(ttl_seconds),
            ",".join(RECORD_FIELDS),
        ]

    def write(self, outputs: Sequence[OutputWrite]) -> list[int]:
        """Write outputs. Idempotent: repeating a call returns the same verdicts and writes nothing twice.

        Returns for each `WRITTEN`, `FENCED` (another worker has the job), or `MISSING`: Redis lacks tokens from before
        its delta, and nothing of it was written.
        """
        script_keys, args = [*self._indexes], [*self._head]
        for output in outputs:
            delta, before = output.delta, output.before
            script_keys += [keys.job(output.job_id), keys.events(output.job_id)]
            args += [output.job_id, output.token]
            if delta is None:
                args += ["", "[]", before, before]
            else:
                args += [encode_delta(delta), compact_json(delta.tokens), before, before + len(delta.tokens)]
            end = "" if output.end is None else encode_end(output.end)
            args += [int(output.is_followed), end, len(output.end_fields), *output.end_fields]
        verdicts: list[int] = self._publish(keys=script_keys, args=args)
        return verdicts
