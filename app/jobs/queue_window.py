"""What an operator watches of the queue: its first waiting jobs and the running ones, without their contents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.jobs import keys
from app.jobs.redis_client import RedisClient

_FIELDS = (
    *("owner", "tenant", "key_name", "kind", "priority", "created_at"),
    *("started_at", "attempt", "published", "worker", "cancel"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job in the window. Times are Unix seconds.

    tokens: of its output, written to its stream so far. worker: the last one that has claimed it.
    """

    id: str
    owner: str
    tenant: str
    key_name: str
    kind: str
    priority: str
    created_at: float
    started_at: float | None
    attempt: int
    tokens: int
    worker: str
    is_canceling: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWindow:
    """The jobs of a model. first: the first waiting ones, in their order. active: running ones.

    waiting, running, scheduled: how many there are; the last are to start later and have no place yet.
    """

    waiting: int
    running: int
    scheduled: int
    first: tuple[JobLine, ...]
    active: tuple[JobLine, ...]


def read_window(
    client: RedisClient, model: str, first: Sequence[str], limit: int, before: QueueWindow | None = None
) -> QueueWindow:
    """Read the window in two round trips.

    Args:
        first: the ids of the first waiting jobs (`QueuePositions.first`).
        limit: the most running jobs that are read.
        before: the window read last; of jobs that still wait, only their priorities are read again.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.zcard(keys.waiting(model))
        pipe.zcard(keys.running(model))
        pipe.zcard(keys.scheduled(model))
        pipe.zrange(keys.running(model), 0, limit - 1)
        waiting, running, scheduled, active = pipe.execute()
    known = {} if before is None else {line.id: line for line in before.first}
    still = [known[job_id] for job_id in first if job_id in known]
    lines = _read_lines(client, [*(job_id for job_id in first if job_id not in known), *active], still)
    known |= lines
    return QueueWindow(
        waiting=waiting,
        running=running,
        scheduled=scheduled,
        first=tuple(known[job_id] for job_id in first if job_id in known),
        active=tuple(sorted((lines[job_id] for job_id in active if job_id in lines), key=_start)),
    )


def _read_lines(client: RedisClient, job_ids: Iterable[str], still: Sequence[JobLine]) -> dict[str, JobLine]:
    """Return the lines of these jobs, without those that have been deleted. still: known ones of waiting jobs."""
    ids = list(dict.fromkeys(job_ids))
    if not ids and not still:
        return {}
    with client.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.hmget(keys.job(job_id), _FIELDS)
        for line in still:
            pipe.hget(keys.job(line.id), "priority")
        values = pipe.execute()
    records = [dict(zip(_FIELDS, record, strict=True)) for record in values[: len(ids)]]
    lines = {line.id: replace(line, priority=now) for line, now in zip(still, values[len(ids) :], strict=True) if now}
    return lines | {
        job_id: _line(job_id, record) for job_id, record in zip(ids, records, strict=True) if record["owner"]
    }


def _line(job_id: str, record: Mapping[str, str | None]) -> JobLine:
    owner, started_at = record["owner"] or "", record["started_at"]
    return JobLine(
        id=job_id,
        owner=owner,
        tenant=record["tenant"] or owner,
        key_name=record["key_name"] or "",
        kind=record["kind"] or "",
        priority=record["priority"] or "",
        created_at=float(record["created_at"] or 0),
        started_at=None if started_at is None else float(started_at),
        attempt=int(record["attempt"] or 0),
        tokens=int(record["published"] or 0),
        worker=record["worker"] or "",
        is_canceling=record["cancel"] == "1",
    )


def _start(line: JobLine) -> tuple[float, str]:
    return line.started_at or 0.0, line.id
