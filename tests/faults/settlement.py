"""Compare the ledger with the records of jobs, the audit stream and the metrics: each job counts once, to the token."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.jobs import keys
from app.jobs.redis_client import RedisClient, connect
from app.jobs.totals import Totals, read_totals
from app.ledger.audit import FIRST, entries_after
from app.ledger.usage import Counters, read_usage, total
from tests.app.ledger.records import counters_of
from tests.faults.service import Service


def ledger(service: Service) -> Counters:
    """Return all that was ever counted."""
    client = connect(service.valkey.url)
    try:
        return _ledger(client)
    finally:
        client.close()


def unsettled(service: Service) -> list[str]:
    """Return a sentence for each job that was not counted as its record says, and for sums that differ.

    Jobs whose records are deleted are in the audit stream, of which the service must keep every entry.
    """
    client = connect(service.valkey.url)
    try:
        entries = list(entries_after(client, FIRST))
        in_audit = {entry["job"]: _counters(entry) for entry in entries}
        in_records = dict(_ended(client))
        in_ledger, in_metrics = _ledger(client), _metrics(read_totals(client, service.model))
    finally:
        client.close()
    counted = Counter(entry["job"] for entry in entries)
    audited = sum(in_audit.values(), Counters())
    return [
        *(f"counted {times} times: {job_id}" for job_id, times in counted.items() if times > 1),
        *(
            f"{job_id}: the record has {record}, counted was {in_audit.get(job_id)}"
            for job_id, record in in_records.items()
            if record != in_audit.get(job_id)
        ),
        *([] if in_ledger == audited else [f"the ledger has {in_ledger}, the jobs {audited}"]),
        *([] if in_metrics == _without_time(in_ledger) else [f"the metrics have {in_metrics}, the ledger {in_ledger}"]),
    ]


def _ledger(client: RedisClient) -> Counters:
    today = datetime.now(UTC).date()
    return total(read_usage(client, today - timedelta(1), today))


def _metrics(totals: Totals) -> Counters:
    """Return what the metrics have, which have no time of computation."""
    outcomes: Counter[str] = Counter()
    for (status, *_), jobs in totals.counts("jobs"):
        outcomes[status] += jobs
    return Counters(
        **outcomes,
        cache_hits=totals.count("cached_responses"),
        prompt_tokens=totals.count("prompt_tokens"),
        cached_tokens=totals.count("cached_tokens"),
        completion_tokens=totals.count("generation_tokens"),
    )


def _without_time(counters: Counters) -> Counters:
    return replace(counters, compute_microseconds=0)


def _ended(client: RedisClient) -> Iterator[tuple[str, Counters]]:
    """Yield the id of each record of an ended job, and what it counts for."""
    for name in client.scan_iter(keys.job("*"), count=1000):
        record = client.hgetall(name)
        if "completed_at" in record:
            yield record["id"], counters_of(record)


def _counters(entry: Mapping[str, Any]) -> Counters:
    return Counters(
        **{entry["outcome"]: 1},
        cache_hits=int(entry["source"] == "cached"),
        prompt_tokens=entry["prompt_tokens"],
        cached_tokens=entry["cached_tokens"],
        completion_tokens=entry["completion_tokens"],
        compute_microseconds=round(entry["compute_seconds"] * 1e6),
    )
