"""Jobs, workers, a reaper and a broker that loses doorbells: any order of events, against the model of `job_model`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from app.errors import Conflict, QueueFull
from app.jobs import keys
from app.jobs.events import Delta, End
from app.jobs.job import JobRequest, Kind, Metrics, Output, Priority, Status, Usage
from app.jobs.order import doorbell
from app.jobs.output_writer import OutputWrite, OutputWriter
from app.jobs.principal import Principal
from app.jobs.reaper import Reaper
from app.jobs.record import outcome_fields
from app.jobs.redis_client import RedisClient, script
from app.jobs.store import LEASE_SECONDS, Claim, JobStore, new_job_id
from app.jobs.totals import Totals
from app.ledger.usage import Counters, read_usage, total
from tests.app.jobs.job_model import LIMITED, MAX_ATTEMPTS, MAX_QUEUED, OWNERS, TTL_SECONDS, Model, ModelJob
from tests.app.jobs.job_snapshot import Snapshot
from tests.repeating_client import RepeatingClient

MAX_JOBS = 4
CLASS = 3e15  # of the scores of waiting jobs
FAR_AWAY = 2_500_000_000.0  # in 2049
SETTINGS = settings(max_examples=180, stateful_step_count=50, deadline=None, print_blob=True, database=None)
SHRINKING_SECONDS = 400  # hypothesis shrinks a failure before it reports it

Thing = TypeVar("Thing")
requests = st.builds(
    JobRequest,
    kind=st.just(Kind.GENERATE),
    prompt=st.sampled_from(["p", "q"]),
    priority=st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.LOW]),
    expires_in_seconds=st.sampled_from([None, 100.0]),
    ttl_seconds=st.sampled_from([None, 500, 5000]),
)
workers = st.sampled_from(["ada", "bob"])
which = st.integers(0, 99)  # of those to which it can happen
times = st.integers(1, 2)  # that a command is sent


@dataclass(slots=True)
class Run:
    """A claim held by a worker, which may be late. The worker has sent `sent` tokens of its text."""

    claim: Claim
    sent: int

    @property
    def held(self) -> tuple[str, int]:
        return self.claim.job_id, self.claim.token


def word(position: int) -> str:
    return f"{position} "


class JobLife(RuleBasedStateMachine):
    """Each rule does the same to Redis and to the model, and compares their answers."""

    def __init__(self, raw: "redis.Redis", client: RedisClient) -> None:
        super().__init__()
        self.raw = raw
        self.raw.flushall()
        self.raw.set(keys.alive("m"), "any-worker")
        self.raw.hset(keys.api_key(LIMITED), "concurrent_jobs", "1000")
        self.client = RepeatingClient(client)
        self.store = JobStore(self.client, model="m", ttl_seconds=TTL_SECONDS, max_queued=MAX_QUEUED)
        self.reaper = Reaper(client, model="m", ttl_seconds=TTL_SECONDS, max_attempts=MAX_ATTEMPTS)
        self.renew_script = script(self.client, "renew")
        self.writer = OutputWriter(self.client, model="m", ttl_seconds=TTL_SECONDS)
        self.model = Model()
        self.scheduled = 0
        self.held = 0  # doorbells that consumers have fetched and not used
        self.runs: list[Run] = []
        self.accepted: set[str] = set()
        self.forgotten: set[str] = set()
        self.ends: dict[str, Status] = {}
        self.ran: dict[str, int] = {}  # microseconds of each job that has ended
        self.owners: dict[str, str] = {}
        self.claims: dict[str, tuple[int, int]] = {}  # highest token and attempt of each job

    # --- what clients do

    @precondition(lambda self: len(self.model.jobs) < MAX_JOBS)
    @rule(
        request=requests,
        is_for_later=st.sampled_from([False, False, True]),
        owner=st.sampled_from(sorted(OWNERS)),
        key=st.sampled_from([None, "a", "b"]),
        times=times,
    )
    def admit(self, request: JobRequest, is_for_later: bool, owner: str, key: str | None, times: int) -> None:
        job_id = new_job_id()
        if is_for_later:
            self.scheduled += 1
            request = replace(request, not_before=FAR_AWAY + self.scheduled)
        expected = self.model.admit(job_id, request, owner, key)
        principal = Principal(owner=owner, tenant=owner, weight=OWNERS[owner])
        self.client.times = times
        try:
            outcome = self.store.admit(request, principal, job_id, idempotency_key=key).id
        except Conflict:
            outcome = "conflict"
        except QueueFull:
            outcome = "full"
        assert outcome == expected
        if outcome == job_id:
            self.accepted.add(job_id)

    @precondition(lambda self: self.model.jobs)
    @rule(which=which, times=times)
    def cancel(self, which: int, times: int) -> None:
        job = self._pick(which, list(self.model.jobs.values()))
        self.client.times = times
        assert self.store.cancel(job.id) is self.model.cancel(job.id)

    @precondition(lambda self: self.model.jobs)
    @rule(which=which, priority=st.sampled_from(Priority), times=times)
    def change_priority(self, which: int, priority: Priority, times: int) -> None:
        job = self._pick(which, list(self.model.jobs.values()))
        self.client.times = times
        if self.model.change_priority(job.id, priority) is Status.QUEUED:
            self.store.change_priority(job.id, priority)
        else:
            with pytest.raises(Conflict, match=f"the job is {job.status}"):
                self.store.change_priority(job.id, priority)

    @precondition(lambda self: self.model.jobs)
    @rule(which=which, times=times)
    def forget(self, which: int, times: int) -> None:
        job = self.store.read(self._pick(which, list(self.model.jobs.values())).id)
        self.client.times = times
        assert self.store.delete(job) is self.model.forget(job.id)
        if job.id not in self.model.jobs:
            self.forgotten.add(job.id)

    # --- what workers do

    @rule()
    def fetch(self) -> None:
        self.held += self.raw.rpop(keys.doorbells("m")) is not None

    @precondition(lambda self: self.held)
    @rule(worker=workers, times=times)
    def claim(self, worker: str, times: int) -> None:
        self.held -= 1
        self._claim(worker, times)

    @rule(worker=workers, times=times)
    def claim_for_a_doorbell_too_many(self, worker: str, times: int) -> None:
        self._claim(worker, times)

    @precondition(lambda self: self.runs)
    @rule(which=which, is_late=st.booleans(), times=times)
    def renew(self, which: int, is_late: bool, times: int) -> None:
        run = self._pick_run(which, is_late)
        self.client.times = times
        job_id, token = run.held
        reply = self.renew_script(keys=[keys.job(job_id), keys.running("m")], args=[job_id, token, LEASE_SECONDS])
        if self.model.holds(job_id, token):
            job = self.model.jobs[job_id]
            job.is_lease_over = False
            assert reply[:2] == ["ok", str(int(job.is_cancel_requested))]
        else:
            assert reply == ["lost"]

    @precondition(lambda self: self.runs)
    @rule(which=which, is_late=st.booleans(), times=times)
    def publish(self, which: int, is_late: bool, times: int) -> None:
        run = self._pick_run(which, is_late)
        self._publish(run, run.sent, times)
        run.sent += 1

    @precondition(lambda self: self.runs)
    @rule(which=which, back=st.integers(1, 3))
    def publish_again(self, which: int, back: int) -> None:
        run = self._pick_run(which, is_late=False)
        self._publish(run, max(0, run.sent - back), 1)

    @precondition(lambda self: self.runs)
    @rule(which=which)
    def publish_after_a_gap(self, which: int) -> None:
        """Publish a token while the one before it is missing."""
        run = self._pick_run(which, is_late=False)
        self._publish(run, run.sent + 1, 1)

    @precondition(lambda self: self.runs)
    @rule(
        which=which,
        is_late=st.booleans(),
        status=st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.CANCELED]),
        has_delta=st.booleans(),
        prompt=st.integers(0, 1000),
        times=times,
    )
    def finish(self, which: int, is_late: bool, status: Status, has_delta: bool, prompt: int, times: int) -> None:
        self._finish(self._pick_run(which, is_late), status, has_delta, times, prompt)

    @precondition(lambda self: self.runs)
    @rule(which=which, is_late=st.booleans(), times=times)
    def hand_back(self, which: int, is_late: bool, times: int) -> None:
        run = self._pick_run(which, is_late)
        is_handed = self.model.hand_back(*run.held)
        self.client.times = times
        assert self.store.hand_back(run.claim) is (is_handed and times == 1)

    @precondition(lambda self: self.model.of_status(Status.PROCESSING))
    @rule(which=which)
    def run_on_trial(self, which: int) -> None:
        job = self._pick(which, self.model.of_status(Status.PROCESSING))
        self.model.trials[job.worker] = job.id
        self.raw.set(keys.trial(job.worker), job.id)

    @rule(worker=workers)
    def end_trial(self, worker: str) -> None:
        self.model.trials.pop(worker, None)
        self.raw.delete(keys.trial(worker))

    # --- what the broker does

    @precondition(lambda self: self.held)
    @rule()
    def lose_doorbell(self) -> None:
        """A consumer takes a doorbell and dies."""
        self.held -= 1

    @precondition(lambda self: self.held)
    @rule()
    def put_doorbell_back(self) -> None:
        """Put a doorbell back as Kombu does for a consumer that stops."""
        self.held -= 1
        self.raw.lpush(keys.doorbells("m"), doorbell("m"))

    @rule()
    def lose_all_doorbells(self) -> None:
        self.raw.delete(keys.doorbells("m"))

    @rule()
    def duplicate_doorbell(self) -> None:
        self.raw.lpush(keys.doorbells("m"), doorbell("m"))

    # --- what time does

    @precondition(lambda self: self.model.of_status(Status.PROCESSING))
    @rule(which=which)
    def end_lease(self, which: int) -> None:
        self._end_lease(self._pick(which, self.model.of_status(Status.PROCESSING)))

    @precondition(lambda self: self.model.of_status(Status.PROCESSING))
    @rule(worker=workers)
    def lose_worker(self, worker: str) -> None:
        self._lose_worker(worker)

    @precondition(lambda self: self.model.of_status(Status.QUEUED))
    @rule(worker=workers)
    def kill_worker(self, worker: str) -> None:
        """A job kills its worker, and all jobs that run there are lost."""
        self._claim(worker, 1)
        self._lose_worker(worker)

    @precondition(lambda self: self._scheduled_jobs())
    @rule(which=which)
    def let_its_time_come(self, which: int) -> None:
        self._let_its_time_come(self._pick(which, self._scheduled_jobs()))

    @precondition(lambda self: self._mortal_jobs())
    @rule(which=which)
    def wait_too_long(self, which: int) -> None:
        job = self._pick(which, self._mortal_jobs())
        job.has_waited_too_long = True
        self.raw.hset(keys.job(job.id), "expires_at", "1")
        self.raw.zadd(keys.expiring("m"), {job.id: 1}, xx=True)

    @precondition(lambda self: self._jobs_that_may_rise())
    @rule(which=which)
    def age(self, which: int) -> None:
        job = self._pick(which, self._jobs_that_may_rise())
        job.has_aged = True
        self.raw.zadd(keys.waiting("m"), {job.id: job.step * CLASS}, xx=True)

    @precondition(lambda self: any(job.status.is_final for job in self.model.jobs.values()))
    @rule(which=which)
    def outlive(self, which: int) -> None:
        """The time to live of a final job passes: Redis deletes all its keys at once, and the reaper the rest."""
        job = self._pick(which, [job for job in self.model.jobs.values() if job.status.is_final])
        names = [keys.job(job.id), keys.events(job.id), self.raw.hget(keys.job(job.id), "idempotency")]
        assert len({self.raw.pexpiretime(name) for name in names if name}) == 1
        self.raw.delete(*(name for name in names if name))
        self.raw.zadd(keys.ended("m"), {f"{job.id} {job.owner}": 1})
        self.model.forget(job.id)
        self.forgotten.add(job.id)
        self._have_a_turn()

    @rule(turns=st.integers(1, 2))
    def reap(self, turns: int) -> None:
        for _ in range(turns):
            self._have_a_turn()
            assert self.raw.llen(keys.doorbells("m")) == len(self.model.waiting())

    # --- what is promised

    @invariant()
    def redis_is_as_the_model_predicts(self) -> None:
        snapshot = Snapshot.of(self.raw, self.model.jobs)
        snapshot.compare(self.model)
        assert not [name for name in snapshot.seconds_to_live for job_id in self.forgotten if job_id in name]
        for job in self.model.jobs.values():
            self._remember(job.id, snapshot.records[job.id])
        counted: Counter[str] = Counter()
        for (status, *_), count in Totals(self.raw.hgetall(keys.totals("m"))).counts("jobs"):
            counted[status] += count
        assert counted == Counter(status.value for status in self.ends.values())

    def teardown(self) -> None:
        """All earlier consumers and workers are dead. From now on nothing fails, and every job ends."""
        for job in self._scheduled_jobs():
            self._let_its_time_come(job)
        for _ in range(2 * MAX_JOBS + 2):
            for job in self.model.of_status(Status.PROCESSING):
                self._end_lease(job)
            self._have_a_turn()
            if not self.model.of_status(Status.QUEUED, Status.PROCESSING):
                break
            while self.raw.rpop(keys.doorbells("m")) is not None:
                run = self._claim("healthy", 1)
                if run is not None:
                    self._finish(run, Status.SUCCEEDED, True, 1)
        assert not self.model.of_status(Status.QUEUED, Status.PROCESSING)
        self.redis_is_as_the_model_predicts()
        assert set(self.model.jobs) | self.forgotten == self.accepted
        self._ledger_is_as_the_records_were()

    def _ledger_is_as_the_records_were(self) -> None:
        """Each accepted job, forgotten or not, is counted once, with the time that its record had."""
        today = datetime.now(UTC).date()
        for owner in OWNERS:
            counted = total(read_usage(self.raw, today - timedelta(1), today, owner=owner))
            ran = sum(micros for job_id, micros in self.ran.items() if self.owners[job_id] == owner)
            assert counted == self.model.counted[owner] + Counters(compute_microseconds=ran)

    # --- steps

    def _remember(self, job_id: str, record: dict[str, str]) -> None:
        """Check without the model: a final status never changes, and token and attempt never decrease."""
        status, claims = Status(record["status"]), (int(record.get("token", 0)), int(record.get("attempt", 0)))
        assert self.ends.get(job_id, status) is status
        assert all(now >= then for now, then in zip(claims, self.claims.get(job_id, (0, 0)), strict=True))
        self.claims[job_id] = claims
        if status.is_final:
            self.ends[job_id] = status
            self.ran[job_id] = round(float(record["ran"]) * 1e6)
            self.owners[job_id] = record["owner"]

    def _pick(self, which: int, things: Sequence[Thing]) -> Thing:
        return things[which % len(things)]

    def _pick_run(self, which: int, is_late: bool) -> Run:
        return self._pick(which, [run for run in self.runs if self.model.holds(*run.held) is not is_late] or self.runs)

    def _mortal_jobs(self) -> list[ModelJob]:
        """Return the jobs that are not final and have an expiry, whether it still applies or not."""
        jobs = self.model.of_status(Status.QUEUED, Status.PROCESSING)
        return [job for job in jobs if job.request.expires_in_seconds is not None]

    def _scheduled_jobs(self) -> list[ModelJob]:
        return [job for job in self.model.of_status(Status.QUEUED) if job.is_scheduled]

    def _let_its_time_come(self, job: ModelJob) -> None:
        self.raw.zadd(keys.scheduled("m"), {job.id: 1}, xx=True)
        self.model.start(job.id)
        self._have_a_turn()

    def _jobs_that_may_rise(self) -> list[ModelJob]:
        return [job for job in self.model.waiting() if job.step]

    def _claim(self, worker: str, times: int) -> Run | None:
        expected = self.model.claim(worker)
        self.client.times = times
        claim = self.store.claim(worker)
        assert (None if claim is None else claim.job_id) == expected
        if claim is None:
            return None
        job_id = claim.job_id
        job = self.model.jobs[job_id]
        assert (claim.request, claim.token, claim.attempt) == (job.request, job.token, job.attempt)
        assert (claim.losses, claim.published_tokens) == (job.losses, len(job.texts))
        run = Run(claim, claim.published_tokens)
        self.runs.append(run)
        return run

    def _publish(self, run: Run, before: int, times: int) -> None:
        expected = self.model.publish(*run.held, before, word(before))
        assert self._write(run, times, **_delta(before)) == expected

    def _finish(self, run: Run, status: Status, has_delta: bool, times: int, prompt: int = 9) -> None:
        if self.model.holds(*run.held):
            run.sent = len(self.model.jobs[run.claim.job_id].texts)
        if has_delta:
            self.model.publish(*run.held, run.sent, word(run.sent))
        text = "".join(word(position) for position in range(run.sent + has_delta))
        usage = Usage(prompt_tokens=prompt, cached_tokens=prompt // 2, completion_tokens=run.sent + has_delta)
        fields = outcome_fields(status, output=Output(text=text), usage=usage, metrics=Metrics(), error=None)
        end: dict[str, Any] = {"end": End(status, usage=usage)}
        end["end_fields"] = [part for pair in fields.items() for part in pair]
        delta = _delta(run.sent) if has_delta else {"before": run.sent}
        expected = self.model.finish(*run.held, status, usage)
        assert self._write(run, times, **delta, **end) == expected

    def _write(self, run: Run, times: int, **output: Any) -> int:
        job_id, token = run.held
        self.client.times = times
        (result,) = self.writer.write([OutputWrite(job_id=job_id, token=token, **output)])
        return result

    def _end_lease(self, job: ModelJob) -> None:
        job.is_lease_over = True
        self.raw.hset(keys.job(job.id), "lease_until", "1")
        self.raw.zadd(keys.running("m"), {job.id: 1})

    def _lose_worker(self, worker: str) -> None:
        for job in self.model.of_status(Status.PROCESSING):
            if job.worker == worker:
                self._end_lease(job)
        self._have_a_turn()

    def _have_a_turn(self) -> None:
        self.raw.delete(keys.reaper("m"))
        self.model.reap()
        self.reaper.reap()


def _delta(before: int) -> dict[str, Any]:
    return {"delta": Delta(word(before), (before,)), "before": before}


@pytest.mark.timeout(SHRINKING_SECONDS)
def test_every_accepted_job_ends_once_whatever_happens_to_it(redis_url: str, redis_client: RedisClient) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        run_state_machine_as_test(lambda: JobLife(raw, redis_client), settings=SETTINGS)
