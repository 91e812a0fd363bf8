"""Everything that Redis holds about jobs at one moment, compared with the model."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import redis

from app.jobs import keys
from app.jobs.job import Status
from tests.app.jobs.job_model import LIMITED, MAX_ATTEMPTS, OWNERS, Model, ModelJob

SPAN = 1e15  # of the counters of one class
SLOW_SECONDS = 60  # longer than a test takes


@dataclass(slots=True)
class Snapshot:
    """The contents of Redis: records and events by job id, indexes by key, seconds_to_live of every key."""

    records: dict[str, dict[str, str]]
    events: dict[str, list[tuple[str, dict[str, str]]]]
    indexes: dict[str, dict[str, float]]
    shares: dict[str, float]
    seconds_to_live: dict[str, int]

    @classmethod
    def of(cls, raw: "redis.Redis", job_ids: Iterable[str]) -> Self:
        names_of_model = (keys.waiting, keys.tenants, keys.scheduled, keys.running, keys.expiring, keys.ended)
        indexes = [name("m") for name in names_of_model]
        indexes += [
            name for owner in OWNERS for name in (keys.jobs_of(owner), keys.queue(owner, "m"), keys.active(owner))
        ]
        names: Any = raw.keys()
        with raw.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(keys.job(job_id))
            for job_id in job_ids:
                pipe.xrange(keys.events(job_id))
            for index in indexes:
                pipe.zrange(index, 0, -1, withscores=True)
            pipe.hgetall(keys.shares("m"))
            for name in names:
                pipe.ttl(name)
            answers = iter(pipe.execute())
        return cls(
            records={job_id: next(answers) for job_id in job_ids},
            events={job_id: next(answers) for job_id in job_ids},
            indexes={index: dict(next(answers)) for index in indexes},
            shares={name: float(value) for name, value in next(answers).items()},
            seconds_to_live={name: next(answers) for name in names},
        )

    def compare(self, model: Model) -> None:
        self._compare_keys(model)
        self._compare_indexes(model)
        for job in model.jobs.values():
            self._compare_record(job)
            self._compare_stream(job)

    def _compare_keys(self, model: Model) -> None:
        """Compare the keys: each kept job has its own, a forgotten job has none."""
        kept = [self.records[job.id]["idempotency"] for job in model.jobs.values() if job.idempotency_key is not None]
        kept += [name for job_id in model.jobs for name in (keys.job(job_id), keys.events(job_id))]
        about_jobs = [name for kind in ("job", "events", "idempotency") for name in self._named(kind)]
        assert set(about_jobs) <= set(kept)
        assert set(self._named("job")) == {keys.job(job_id) for job_id in model.jobs}
        assert len(self._named("idempotency")) == sum(job.idempotency_key is not None for job in model.jobs.values())

    def _named(self, kind: str) -> list[str]:
        return [name for name in self.seconds_to_live if name.startswith(f"{keys.PREFIX}{kind}:")]

    def _compare_indexes(self, model: Model) -> None:
        jobs = model.jobs.values()
        assert set(self.indexes[keys.waiting("m")]) == {job.id for job in model.waiting()}
        for owner in OWNERS:
            places = {job.id: float(self.records[job.id]["place"]) for job in model.order(owner)}
            assert list(self.indexes[keys.queue(owner, "m")].items()) == list(places.items())
            assert self.shares.get(f"served {owner}", 0.0) == model.shares.counters[owner]
        assert self.indexes[keys.tenants("m")] == {
            tenant: step * SPAN + model.shares.counters[tenant] for tenant, step in model.shares.seats.items()
        }
        scheduled = {job.id for job in model.of_status(Status.QUEUED) if job.is_scheduled}
        assert set(self.indexes[keys.scheduled("m")]) == scheduled
        running = [job.id for job in model.of_status(Status.PROCESSING)]
        leases = {job_id: float(self.records[job_id]["lease_until"]) for job_id in running}
        assert self.indexes[keys.running("m")] == leases
        assert set(self.indexes[keys.expiring("m")]) == {job.id for job in jobs if job.is_expiring}
        assert set(self.indexes[keys.ended("m")]) == {f"{job.id} {job.owner}" for job in jobs if job.status.is_final}
        active = {job.id: float(job.status is Status.PROCESSING) for job in jobs if not job.status.is_final}
        assert self.indexes[keys.active(LIMITED)] == {
            job_id: score for job_id, score in active.items() if model.jobs[job_id].owner == LIMITED
        }
        for owner in OWNERS:
            assert set(self.indexes[keys.jobs_of(owner)]) == {job.id for job in jobs if job.owner == owner}

    def _compare_record(self, job: ModelJob) -> None:
        record = self.records[job.id]
        assert (record["status"], record["priority"]) == (job.status, job.priority)
        assert (int(record.get("token", 0)), int(record.get("attempt", 0))) == (job.token, job.attempt)
        assert ("idempotency" in record) is (job.idempotency_key is not None)
        names = [keys.job(job.id), keys.events(job.id), record.get("idempotency", "")]
        seconds = {self.seconds_to_live[name] for name in names if name in self.seconds_to_live}
        if job.status.is_final:
            assert all(job.kept_seconds - SLOW_SECONDS < left <= job.kept_seconds for left in seconds)
            assert json.loads(record.get("output", '{"text":""}'))["text"] == job.output
            assert ("error" in record) is (job.status is Status.FAILED and job.losses >= MAX_ATTEMPTS)
        else:
            assert seconds == {-1}

    def _compare_stream(self, job: ModelJob) -> None:
        events = [fields for _, fields in self.events[job.id]]
        kinds = [fields["type"] for fields in events]
        assert kinds.count("started") == job.attempt
        assert kinds.count("end") == int(job.status.is_final)
        if job.status.is_final:
            assert kinds[-1] == "end"
            assert json.loads(events[-1]["data"])["status"] == job.status
        deltas = [fields for fields in events if fields["type"] == "delta"]
        assert [json.loads(fields["tokens"]) for fields in deltas] == [[number] for number in range(len(job.texts))]
        assert [json.loads(fields["data"])["text"] for fields in deltas] == job.texts
