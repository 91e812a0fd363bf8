"""What the records of jobs say of their usage, to be compared with the ledger."""

import json
from collections.abc import Iterable, Mapping

import redis

from app.jobs import keys
from app.jobs.job import OutputSource, Status
from app.ledger.usage import Counters


def counters_of(record: Mapping[str, str]) -> Counters:
    """Return what the record of an ended job counts for. Raises KeyError for one that has not ended."""
    usage, metrics = json.loads(record["usage"]), json.loads(record.get("metrics", "{}"))
    status = Status(record["status"])
    return Counters(
        **{str(status): 1},
        cache_hits=int(metrics.get("source") == OutputSource.CACHED),
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage["cached_tokens"],
        completion_tokens=usage["completion_tokens"],
        compute_microseconds=round(float(record["ran"]) * 1e6),
    )


def recorded(raw: "redis.Redis", job_ids: Iterable[str]) -> Counters:
    """Return the sum over the records of ended jobs."""
    with raw.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(keys.job(job_id))
        return sum(map(counters_of, pipe.execute()), Counters())
