"""A model's queue in a real Valkey, and what clients, consumers, workers and the reaper do with it."""

from dataclasses import dataclass, field
from typing import Any

import redis

from app.jobs import keys
from app.jobs.events import FROM_START, Delta, End, Event, read_events
from app.jobs.job import Job, JobRequest, Kind, Metrics, Output, OutputSource, Priority, Status, Usage
from app.jobs.order import doorbell
from app.jobs.output_writer import WRITTEN, OutputWrite, OutputWriter
from app.jobs.queue_positions import QueuePositions
from app.jobs.reaper import Reaper
from app.jobs.record import outcome_fields
from app.jobs.redis_client import RedisClient, script
from app.jobs.sharing import DEFAULT_SHARING, Sharing
from app.jobs.store import LEASE_SECONDS, Claim, JobStore
from tests.claiming import claim_job
from tests.lost_worker import end_lease
from tests.principals import ME

MODEL, TTL_SECONDS, MAX_ATTEMPTS = "m", 60, 3


@dataclass
class Scene:
    """A model's queue, with a method for each thing that clients, consumers, workers and the reaper do with it."""

    client: RedisClient
    raw: "redis.Redis"
    url: str
    sharing: Sharing = DEFAULT_SHARING
    store: JobStore = field(init=False)
    reaper: Reaper = field(init=False)

    def __post_init__(self) -> None:
        self.store = JobStore(self.client, model=MODEL, ttl_seconds=TTL_SECONDS, max_queued=-1, sharing=self.sharing)
        self.reaper = Reaper(
            self.client, model=MODEL, ttl_seconds=TTL_SECONDS, max_attempts=MAX_ATTEMPTS, sharing=self.sharing
        )
        self.raw.set(keys.alive(MODEL), "any-worker")
        self.renew_script = script(self.client, "renew")
        self.writer = OutputWriter(self.client, model=MODEL, ttl_seconds=TTL_SECONDS, sharing=self.sharing)

    def admit(self, *, priority: Priority = Priority.NORMAL, **more: Any) -> Job:
        return self.store.admit(self.request(priority=priority, **more), ME)

    def request(self, **more: Any) -> JobRequest:
        return JobRequest(kind=Kind.GENERATE, prompt="p", **more)

    def running(self, worker: str = "worker-1", **request: Any) -> Claim:
        """Admit a job and claim it for a worker that receives its doorbell."""
        return self.claimed(self.admit(**request).id, worker)

    def claimed(self, job_id: str, worker: str = "worker-1") -> Claim:
        """Claim this job, whatever its position in the order."""
        self.raw.rpop(keys.doorbells(MODEL))
        claim = claim_job(self.store, self.raw, job_id, worker)
        assert claim is not None
        return claim

    def next_claim(self, worker: str = "worker-1") -> Claim:
        """Receive a doorbell and claim the first job for a worker."""
        assert self.raw.rpop(keys.doorbells(MODEL)) == doorbell(MODEL)
        claim = self.store.claim(worker)
        assert claim is not None
        return claim

    def renew(self, claim: Claim) -> list[str]:
        job_keys = [keys.job(claim.job_id), keys.running(MODEL)]
        reply: list[str] = self.renew_script(keys=job_keys, args=[claim.job_id, claim.token, LEASE_SECONDS])
        return reply

    def publish(self, claim: Claim, *words: str) -> None:
        """Publish one delta of one token for each word."""
        for number, word in enumerate(words, start=claim.published_tokens):
            assert self._publish(claim, **_delta(word, number)) == WRITTEN

    def finish(self, claim: Claim, word: str = "") -> int:
        """Let the job succeed, with or without a last delta."""
        delta = _delta(word, claim.published_tokens) if word else {}
        return self._publish(claim, **delta, end=End(Status.SUCCEEDED), end_fields=["status", Status.SUCCEEDED.value])

    def end(
        self,
        claim: Claim,
        *,
        status: Status = Status.SUCCEEDED,
        usage: Usage,
        source: OutputSource | None = OutputSource.COMPUTED,
    ) -> int:
        """End the job with a usage, as a worker does."""
        fields = outcome_fields(status, output=Output(), usage=usage, metrics=Metrics(source=source), error=None)
        end_fields = [part for pair in fields.items() for part in pair]
        return self._publish(claim, end=End(status, usage=usage), end_fields=end_fields)

    def _publish(self, claim: Claim, **output: Any) -> int:
        (result,) = self.writer.write([OutputWrite(job_id=claim.job_id, token=claim.token, **output)])
        return result

    def turn(self) -> int:
        """Run one turn of the reaper, as if a second had passed since the last."""
        self.raw.delete(keys.reaper(MODEL))
        return self.reaper.reap()

    def lose(self, *claims: Claim) -> None:
        for claim in claims:
            end_lease(self.url, claim.job_id, model=MODEL)
        self.turn()

    def doorbells(self) -> int:
        """Count the doorbells that wait for a consumer."""
        return int(self.raw.llen(keys.doorbells(MODEL)))

    def queue(self) -> list[str]:
        """Return the jobs of the tenant "me" that wait, in their order."""
        return [str(job_id) for job_id in self.raw.zrange(keys.queue(ME.tenant, MODEL), 0, -1)]

    def position(self, job: Job) -> int | None:
        (position,) = QueuePositions(self.client, self.sharing).read([job])
        return None if position is None else position.jobs_ahead + 1

    def events(self, job_id: str) -> list[Event]:
        return [entry.event for entry in read_events(self.client, [(job_id, FROM_START)])[0]]


def _delta(word: str, position: int) -> dict[str, Any]:
    return {"delta": Delta(word, (position,)), "before": position}
