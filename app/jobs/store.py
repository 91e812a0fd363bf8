"""The job store: creates, reads and changes job records. Each change is one script, hence one atomic step.

A job's record, a hash in Redis, is the source of truth about the job. Errors of Redis itself pass through as
`redis.RedisError`.
"""

import json
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.errors import Conflict, JobNotFound
from app.jobs import keys
from app.jobs.admission import new_record, rejection
from app.jobs.idempotency import digest_of, fingerprint
from app.jobs.job import Job, JobRequest, Priority, Status
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.order import doorbell
from app.jobs.principal import Principal
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient, script
from app.jobs.sharing import DEFAULT_SHARING, Sharing
from app.jobs.worker_registry import no_worker

LEASE_SECONDS = 15  # a worker renews every third of it


def new_job_id() -> str:
    """Return a random UUID, so that no client can guess the id of another client's job."""
    return str(uuid.uuid4())


def new_nonce() -> str:
    """Return a name for one claim."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job taken by a worker. Every write for it carries `token`; a later claim's token makes this one's writes void.

    created_at, started_at: Unix seconds, the latter of the first claim. followed: a client reads the job's stream,
    so its deltas are written at once. losses: deaths of workers that it is blamed for. ran_seconds: how long earlier
    workers ran it. published_tokens: how many of its tokens are in its stream already. trace_parent: of the request
    that made it (`app.jobs.trace_parent`).
    """

    job_id: str
    owner: str
    tenant: str
    request: JobRequest
    token: int
    attempt: int
    created_at: float
    started_at: float
    followed: bool
    losses: int = 0
    ran_seconds: float = 0.0
    published_tokens: int = 0
    trace_parent: str = ""

    @property
    def ready_at(self) -> float:
        """From when on it could be claimed, in Unix seconds."""
        return max(self.created_at, self.request.not_before or 0.0)

    @property
    def queue_seconds(self) -> float:
        return max(0.0, self.started_at - self.ready_at)


class JobStore:
    """The jobs of one model."""

    def __init__(
        self,
        client: RedisClient,
        *,
        model: str,
        ttl_seconds: int,
        max_queued: int,
        sharing: Sharing = DEFAULT_SHARING,
        ledger: LedgerLimits = LedgerLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._redis = client
        self.model = model
        self._order = sharing.order_of(model)
        self._doorbell = doorbell(model)
        self._ttl_seconds = ttl_seconds
        self._kept = ledger.kept(ttl_seconds)
        self._max_queued = max_queued
        self._admit = script(client, "admit")
        self._claim = script(client, "claim")
        self._hand_back = script(client, "hand_back")
        self._cancel = script(client, "cancel")
        self._change_priority = script(client, "change_priority")
        self._delete = script(client, "delete_job")
        self._follow = script(client, "follow")

    def admit(
        self,
        request: JobRequest,
        principal: Principal,
        job_id: str | None = None,
        *,
        idempotency_key: str | None = None,
        limit_share: float = 1.0,
        listener: str = "",
    ) -> Job:
        """Accept a job. Its record, its place in the order and a doorbell appear in one atomic step.

        Args:
            job_id: from `new_job_id`, for a caller that subscribes to the job before it exists.
            idempotency_key: the same key and request of the same owner return the job that they made, with its own id.
            limit_share: of the limits of its API key, which part jobs of this kind may take at once.
            listener: the channel of the API process that waits for it; "" where none does.

        Raises:
            RateLimited: the job exceeds a limit of its API key.
            QueueFull: `jobs.max_queued` jobs of this model are waiting.
            NoWorker: no worker of this model is alive; a job for later needs none yet.
            Conflict: a different request was sent with this idempotency key.
        """
        job_id = job_id or new_job_id()
        record = new_record(
            job_id, self.model, request, principal, limit_share=limit_share, longest_ttl_seconds=self._ttl_seconds
        )
        record |= {"listeners": listener} if listener else {}
        expires_in = request.expires_in_seconds
        key = keys.idempotency(principal.owner, digest_of(idempotency_key)) if idempotency_key else ""
        indexes = self._indexes(keys.alive, keys.doorbells, keys.expiring)
        verdict, *rest = self._admit(
            keys=[keys.job(job_id), *indexes, keys.jobs_of(principal.owner), key, keys.scheduled(self.model)],
            args=[
                self._order,
                job_id,
                principal.tenant,
                request.priority.value,
                self._max_queued,
                self._doorbell,
                "" if expires_in is None else f"{expires_in:.6f}",
                fingerprint(request, self.model) if idempotency_key else "",
                ",".join(RECORD_FIELDS) if idempotency_key else "",
                *(part for pair in record.items() for part in pair),
            ],
        )
        if verdict == "no_worker":
            raise no_worker(self._redis, self.model, waiting=rest[0])
        if error := rejection(verdict, rest):
            raise error
        if verdict == "same":
            earlier = job_from_record(rest)
            assert earlier is not None, "admit.lua returns a record that exists"
            return earlier
        return Job(
            id=job_id,
            kind=request.kind,
            model=self.model,
            status=Status.QUEUED,
            priority=request.priority,
            owner=principal.owner,
            created_at=float(rest[0]),
            not_before=request.not_before,
        )

    def read(self, job_id: str) -> Job:
        """Return the job. Raises JobNotFound."""
        job = job_from_record(self._redis.hmget(keys.job(job_id), RECORD_FIELDS))
        if job is None:
            raise _not_found(job_id)
        return job

    def read_many(self, job_ids: Iterable[str], client: RedisClient | None = None) -> list[Job | None]:
        """Return the jobs in the order of the ids, None where there is none; one round trip (of `client`, if given)."""
        with (client or self._redis).pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(keys.job(job_id), RECORD_FIELDS)
            return [job_from_record(values) for values in pipe.execute()]

    def read_request(self, job_id: str) -> JobRequest:
        """Return the request of a job. Raises JobNotFound, also for a long one of an ended job that is no response."""
        body = self._redis.hget(keys.job(job_id), "request")
        if body is None:
            raise _not_found(job_id)
        return JobRequest.from_json(json.loads(body))

    def claim(self, worker_id: str, nonce: str | None = None) -> Claim | None:
        """Take the first job of the order for `LEASE_SECONDS`; None when no job waits.

        nonce: from `new_nonce`, for a caller that repeats a claim whose reply was lost: the same nonce gets the same
        job.
        """
        indexes = self._indexes(keys.running, keys.expiring)
        result = self._claim(
            keys=[*indexes, keys.last_claim(worker_id)],
            args=[self._order, worker_id, LEASE_SECONDS, nonce or new_nonce()],
        )
        if result is None:
            return None
        job_id, request, token, attempt, created_at, started_at, followed, losses, ran_seconds, published = result[:10]
        owner, tenant, parent = result[10:]
        return Claim(
            job_id=job_id,
            owner=owner,
            tenant=tenant,
            request=JobRequest.from_json(json.loads(request)),
            token=int(token),
            attempt=int(attempt),
            created_at=float(created_at),
            started_at=float(started_at),
            followed=followed == "1",
            losses=int(losses),
            ran_seconds=float(ran_seconds),
            published_tokens=int(published),
            trace_parent=parent,
        )

    def hand_back(self, claim: Claim) -> bool:
        """Put a claimed job back into the order, for another worker to continue. False: the claim is void.

        A job whose cancellation was requested is `canceled`.
        """
        indexes = self._indexes(keys.running, keys.doorbells, keys.ended)
        handed = self._hand_back(
            keys=[keys.job(claim.job_id), keys.events(claim.job_id), *indexes],
            args=[self._order, claim.job_id, claim.token, self._doorbell, self._kept],
        )
        return bool(handed)

    def cancel(self, job_id: str) -> Status:
        """Cancel a job.

        A queued job, or one whose worker is dead, ends at once. A running job is marked, and its worker is notified.

        Returns:
            The job's status after the call.

        Raises:
            JobNotFound: no such job.
        """
        indexes = self._indexes(keys.running, keys.expiring, keys.ended, keys.doorbells, keys.scheduled)
        args = [self._order, job_id, self._kept, keys.CONTROL_CHANNEL, LEASE_SECONDS]
        status = self._cancel(keys=[keys.job(job_id), keys.events(job_id), *indexes], args=args)
        if status is None:
            raise _not_found(job_id)
        return Status(status)

    def change_priority(self, job_id: str, priority: Priority) -> None:
        """Change the priority of a job that waits, also for its `not_before`.

        Its time of waiting stays: it goes before younger jobs of the new class. The same priority changes nothing, also
        of a job that has risen.

        Raises:
            JobNotFound: no such job.
            Conflict: it does not wait any more.
        """
        args = [self._order, job_id, priority.value]
        status = self._change_priority(keys=[keys.job(job_id)], args=args)
        if status is None:
            raise _not_found(job_id)
        if status != Status.QUEUED:
            raise Conflict(f"the job is {status}; only a job that is queued has a priority that can be changed")

    def follow(self, job_id: str, listener: str, *, with_events: bool = True) -> None:
        """Notify the API process with the channel `listener` too. with_events: also of deltas, as they come."""
        self._follow(keys=[keys.job(job_id)], args=[job_id, listener, keys.CONTROL_CHANNEL if with_events else ""])

    def delete(self, job: Job) -> bool:
        """Delete the record and the stream of a final job. Return False while the job is not final."""
        job_keys = [keys.job(job.id), keys.events(job.id), keys.jobs_of(job.owner), keys.ended(self.model)]
        return bool(self._delete(keys=job_keys, args=[job.id, job.owner]))

    def list_jobs(
        self, owner: str, *, status: Status | None = None, limit: int = 20, before: float | None = None
    ) -> list[Job]:
        """Return the owner's jobs, newest first, created strictly before `before` (Unix seconds)."""
        index = keys.jobs_of(owner)
        listed: list[Job] = []
        upper: str = "+inf" if before is None else f"({before:.6f}"
        offset = 0
        while len(listed) < limit:
            ids = self._redis.zrevrangebyscore(index, upper, "-inf", start=offset, num=limit)
            if not ids:
                break
            jobs = self.read_many(ids)
            dead = [job_id for job_id, job in zip(ids, jobs, strict=True) if job is None]
            if dead:
                self._redis.zrem(index, *dead)
            listed += [job for job in jobs if job is not None and status in (None, job.status)]
            offset += len(ids) - len(dead)
        return listed[:limit]

    def _indexes(self, *names: Callable[[str], str]) -> list[str]:
        return [name(self.model) for name in names]


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
