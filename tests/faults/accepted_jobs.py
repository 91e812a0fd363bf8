"""An accepted job as stored in Redis: record and event stream."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.events import FROM_START, Delta, End, EventEntry, EventType, Started, entry_time, read_events
from app.jobs.job import Job
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient, connect
from tests.faults.service import Service


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    record: Job
    prompt: str
    entries: Sequence[EventEntry]

    @property
    def text(self) -> str:
        return self.record.output.text if self.record.output else ""

    @property
    def published(self) -> str:
        """The text of the stream."""
        return "".join(entry.event.text for entry in self.entries if isinstance(entry.event, Delta))

    @property
    def ends(self) -> list[str]:
        return [entry.event.status for entry in self.entries if isinstance(entry.event, End)]

    @property
    def is_continued(self) -> bool:
        """Return whether a later attempt continued the text of an earlier one."""
        kinds = [entry.event.type for entry in self.entries]
        last_start = max((at for at, kind in enumerate(kinds) if kind is EventType.STARTED), default=0)
        return EventType.DELTA in kinds[:last_start] and EventType.DELTA in kinds[last_start:]

    def claimed_again_at(self, attempt: int) -> float:
        """Return the Unix time of the first claim after `attempt`, or infinity if there was none."""
        starts = [
            entry.id for entry in self.entries if isinstance(entry.event, Started) and entry.event.attempt > attempt
        ]
        return entry_time(starts[0]) if starts else math.inf


def accepted_jobs(service: Service) -> dict[str, AcceptedJob]:
    """Return all accepted jobs that are kept, by id."""
    client = connect(service.valkey.url)
    try:
        jobs = {job_id: _read_job(client, job_id) for job_id in service.job_ids()}
    finally:
        client.close()
    return {job_id: job for job_id, job in jobs.items() if job is not None}


def _read_job(client: RedisClient, job_id: str) -> AcceptedJob | None:
    job = job_from_record(client.hmget(keys.job(job_id), RECORD_FIELDS))
    request = client.hget(keys.job(job_id), "request")
    if job is None or request is None:
        return None
    (entries,) = read_events(client, [(job_id, FROM_START)])
    return AcceptedJob(job, json.loads(request)["prompt"], entries)
