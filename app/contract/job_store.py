"""The job record: the one truth about a job, a hash in Redis written by scripts that take one step each.

Everything raised by Redis itself passes through as `redis.RedisError`.
"""

import json
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.contract import keys
from app.contract.errors import JobNotFound, NoWorker, QueueFull
from app.contract.job_record import RECORD_FIELDS, job_from_record
from app.contract.jobs import Job, JobRequest, Status
from app.contract.queues import Queues
from app.contract.redis_client import RedisClient, script

INDEX_GRACE_SECONDS = 86_400  # an owner's index outlives the records it lists; reading it drops the dead entries
LEASE_SECONDS = 15  # a worker renews every third of it


def new_job_id() -> str:
    """A random UUID: nobody can guess another's job."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job taken by a worker. Every write for it carries `token`; a later claim's token makes this one's writes void.

    followed: somebody reads the job's stream, so its deltas are worth writing at once.
    """

    job_id: str
    request: JobRequest
    token: int
    attempt: int
    queue_seconds: float
    followed: bool


class JobStore:
    """Reads and changes job records of one model's service."""

    def __init__(self, client: RedisClient, *, model: str, queues: Queues, ttl_seconds: int, max_queued: int) -> None:
        self._redis = client
        self._model = model
        self._queues = queues
        self._ttl_seconds = ttl_seconds
        self._max_queued = max_queued
        self._admit = script(client, "admit")
        self._claim = script(client, "claim")
        self._cancel = script(client, "cancel")
        self._forget = script(client, "forget")
        self._follow = script(client, "follow")

    def admit(self, request: JobRequest, owner: str, job_id: str | None = None) -> Job:
        """Accept a job: its record, its place in the queue and its Celery message appear in one atomic step.

        job_id: from `new_job_id`, for a caller that wants to wait for the job before anything can happen to it.

        Raises:
            QueueFull: `jobs.max_queued` jobs of this model wait already.
            NoWorker: no worker of this model lives.
        """
        job_id = job_id or new_job_id()
        record = {
            "id": job_id,
            "kind": request.kind.value,
            "model": self._model,
            "priority": request.priority.value,
            "owner": owner,
            "request": json.dumps(request.to_json(), ensure_ascii=False, separators=(",", ":")),
            "followed": "1" if request.stream else "0",
        }
        verdict, *rest = self._admit(
            keys=[
                keys.job(job_id),
                keys.queued(self._model),
                keys.jobs_of(owner),
                keys.alive(self._model),
                self._queues.list_key(request.priority),
            ],
            args=[
                job_id,
                self._max_queued,
                self._ttl_seconds + INDEX_GRACE_SECONDS,
                request.priority.step,
                self._queues.message(job_id, request.priority),
                *(part for pair in record.items() for part in pair),
            ],
        )
        if verdict == "full":
            raise QueueFull(f"{rest[0]} jobs wait already (jobs.max_queued); try again", retry_after_seconds=5)
        if verdict == "no_worker":
            raise NoWorker(f"no worker serves {self._model!r}; start one and try again", retry_after_seconds=5)
        return Job(
            id=job_id,
            kind=request.kind,
            model=self._model,
            status=Status.QUEUED,
            priority=request.priority,
            owner=owner,
            created_at=float(rest[0]),
        )

    def read(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        job = job_from_record(self._redis.hmget(keys.job(job_id), RECORD_FIELDS))
        if job is None:
            raise JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
        return job

    def read_many(self, job_ids: Iterable[str], client: RedisClient | None = None) -> list[Job | None]:
        """The records in the order of the ids, None where there is none; one round trip (of `client`, if given)."""
        with (client or self._redis).pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(keys.job(job_id), RECORD_FIELDS)
            return [job_from_record(values) for values in pipe.execute()]

    def queue_position(self, job: Job) -> int | None:
        """Jobs of the same model that start before this one, plus one; None once it has started."""
        return self.queue_positions([job])[0]

    def queue_positions(self, jobs: Sequence[Job]) -> list[int | None]:
        """As `queue_position`, for each job; one round trip, none where no job is queued."""
        queued = [job for job in jobs if job.status is Status.QUEUED]
        if not queued:
            return [None] * len(jobs)
        with self._redis.pipeline(transaction=False) as pipe:
            for job in queued:
                pipe.zrank(keys.queued(job.model), job.id)
            ranks = dict(zip((job.id for job in queued), pipe.execute(), strict=True))
        return [None if (rank := ranks.get(job.id)) is None else rank + 1 for job in jobs]

    def claim(self, job_id: str, worker_id: str) -> Claim | None:
        """Take a job for `LEASE_SECONDS`, or None when it is final, gone, or leased by a living worker."""
        got = self._claim(
            keys=[keys.job(job_id), keys.queued(self._model), keys.running(self._model), keys.events(job_id)],
            args=[job_id, worker_id, LEASE_SECONDS, secrets.token_hex(8)],
        )
        if got is None:
            return None
        request, token, attempt, created_at, now, followed = got
        return Claim(
            job_id=job_id,
            request=JobRequest.from_json(json.loads(request)),
            token=int(token),
            attempt=int(attempt),
            queue_seconds=max(0.0, float(now) - float(created_at)),
            followed=followed == "1",
        )

    def cancel(self, job_id: str) -> Status:
        """Cancel a job: queued, or left behind by a dead worker, it ends at once; running, its worker is told.

        Returns its status after the call.

        Raises JobNotFound.
        """
        status = self._cancel(
            keys=[keys.job(job_id), keys.queued(self._model), keys.events(job_id), keys.running(self._model)],
            args=[job_id, self._ttl_seconds],
        )
        if status is None:
            raise JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
        if status == Status.PROCESSING:
            self._redis.publish(keys.CONTROL_CHANNEL, f"cancel:{job_id}")
        else:
            self._redis.publish(keys.HINTS_CHANNEL, job_id)
        return Status(status)

    def follow(self, job_id: str) -> None:
        """Ask the worker to write this job's deltas as they come: somebody reads its stream now."""
        self._follow(keys=[keys.job(job_id)], args=[job_id, keys.CONTROL_CHANNEL])

    def forget(self, job: Job) -> bool:
        """Delete a final job, record and stream. False while it is not final."""
        return bool(self._forget(keys=[keys.job(job.id), keys.events(job.id), keys.jobs_of(job.owner)], args=[job.id]))

    def list_jobs(
        self, owner: str, *, status: Status | None = None, limit: int = 20, before: float | None = None
    ) -> list[Job]:
        """The owner's jobs, newest first, created strictly before `before` (Unix seconds)."""
        index = keys.jobs_of(owner)
        found: list[Job] = []
        upper: str = "+inf" if before is None else f"({before:.6f}"
        offset = 0
        while len(found) < limit:
            ids = self._redis.zrevrangebyscore(index, upper, "-inf", start=offset, num=limit)
            if not ids:
                break
            jobs = self.read_many(ids)
            dead = [job_id for job_id, job in zip(ids, jobs, strict=True) if job is None]
            if dead:
                self._redis.zrem(index, *dead)
            found += [job for job in jobs if job is not None and status in (None, job.status)]
            offset += len(ids) - len(dead)
        return found[:limit]
