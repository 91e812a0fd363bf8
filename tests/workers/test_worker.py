"""The worker in this process, against a real Valkey: what it counts, and what it does when Redis does not answer."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import redis

from app.config.settings import CacheConfig, Config, JobsConfig, WorkerConfig
from app.jobs import keys
from app.jobs.events import FROM_START, Delta, Published, Started, read_events, read_published
from app.jobs.job import Chat, Job, JobRequest, Kind, Status
from app.jobs.output_writer import OutputWrite, OutputWriter
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import Claim, JobStore
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, read_workers
from tests.engines.instant import Instant
from tests.lost_worker import lose_worker
from tests.principals import ME, key_named
from tests.waiting import scaled, until
from tests.workers.batching.scripted_engine import ScriptedEngine, prompt
from workers.batching.runner import BatchRunner
from workers.engines.base import Chunk, Prompt, Sampled
from workers.jobs import claims
from workers.worker import Worker

CONFIG = Config(model_name="m", jobs=JobsConfig(ttl=60))


class Gated(ScriptedEngine):
    """No step runs until `go` is set."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots=slots)
        self.go = threading.Event()

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        assert self.go.wait(scaled(10))
        return super().step(chunks)


class LongPrompts(ScriptedEngine):
    """Every prompt has the same 40 tokens, a prefix that can be shared."""

    def __init__(self) -> None:
        super().__init__(shares_prefixes=True)

    def prepare(self, request: JobRequest) -> Prompt:
        return prompt(request.prompt, length=40)


@pytest.fixture
def make_worker(redis_client: RedisClient, store: JobStore) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(engine: ScriptedEngine | Instant, config: Config = CONFIG) -> Worker:
        worker = Worker(config, redis_client, store, "worker-1")
        worker.serve(BatchRunner(engine, config.worker, worker))
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


def admit(store: JobStore, prompt: str = "text") -> str:
    return store.admit(JobRequest(kind=Kind.GENERATE, prompt=prompt), ME).id


def test_a_worker_has_room_until_every_slot_is_taken_and_reports_when_one_is_free_again(
    make_worker: Callable[..., Worker], store: JobStore
) -> None:
    engine, room_freed = Gated(slots=2), threading.Event()
    worker = make_worker(engine)
    worker.on_slot_free = room_freed.set
    admit(store)
    worker.claim_next()
    assert worker.has_room()
    admit(store)
    worker.claim_next()
    assert (worker.has_room(), worker.active_jobs, worker.drain(0.05)) == (False, 2, False)
    engine.go.set()
    assert room_freed.wait(scaled(5))
    assert worker.drain(scaled(5))
    assert (worker.has_room(), worker.active_jobs) == (True, 0)


class SlowToPrepare(ScriptedEngine):
    """Prepares "slow" when it is allowed to."""

    def __init__(self) -> None:
        super().__init__(slots=2)
        self.may_go_on = threading.Event()

    def prepare(self, request: JobRequest) -> Prompt:
        if request.chat is not None:
            assert self.may_go_on.wait(scaled(30))
        return super().prepare(request)


def test_jobs_that_take_long_to_prepare_hold_no_slot(
    make_worker: Callable[..., Worker], store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.jobs.slow_preparations.SLOW_SECONDS", scaled(0.5))  # longer than two claims take
    engine, room = SlowToPrepare(), threading.Event()
    worker = make_worker(engine)
    worker.on_slot_free = room.set
    chat = Chat(messages=[{"role": "user", "content": "text"}])
    slow: list[str] = []
    while len(slow) < 5:
        until(worker.has_room)
        slow.append(store.admit(JobRequest(kind=Kind.GENERATE, chat=chat), ME).id)
        worker.claim_next()
        if len(slow) == 2:
            assert not worker.has_room(), "as long as it is not known that they are slow"
            assert room.wait(scaled(5))
    until(worker.has_room)
    quick = admit(store)
    worker.claim_next()
    assert wait_until_final(store, quick).status is Status.SUCCEEDED
    assert worker.active_jobs == len(slow)
    engine.may_go_on.set()
    assert {wait_until_final(store, job).status for job in slow} == {Status.SUCCEEDED}


@pytest.mark.parametrize(("across_keys", "cached_tokens"), [(False, [0, 0, 39]), (True, [0, 39, 39])])
def test_jobs_share_their_prefix_with_those_of_their_tenant_or_with_all_across_keys(
    make_worker: Callable[..., Worker], store: JobStore, across_keys: bool, cached_tokens: list[int]
) -> None:
    worker = make_worker(LongPrompts(), replace(CONFIG, cache=CacheConfig(across_keys=across_keys)))
    seen = []
    for owner in ("me", "you", "me"):
        job_id = store.admit(JobRequest(kind=Kind.GENERATE, prompt="text"), key_named(owner)).id
        worker.claim_next()
        assert worker.drain(scaled(5))
        usage = store.read(job_id).usage
        seen.append(usage and usage.cached_tokens)
    assert seen == cached_tokens


def test_a_message_whose_job_is_gone_or_taken_costs_no_slot(
    make_worker: Callable[..., Worker], store: JobStore
) -> None:
    worker = make_worker(ScriptedEngine(slots=1))
    canceled = admit(store)
    store.cancel(canceled)
    worker.claim_next()
    taken = admit(store)
    store.claim("worker-2")
    worker.claim_next()
    assert (worker.active_jobs, store.read(taken).status) == (0, Status.PROCESSING)


def test_a_claim_that_redis_does_not_answer_is_repeated_until_it_does(
    make_worker: Callable[..., Worker], store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RETRY_SECONDS", 0.01)
    worker, claim, failures = make_worker(ScriptedEngine()), store.claim, iter(range(3))

    def refuses_three_times(job_id: str, worker_id: str) -> Claim | None:
        if next(failures, None) is not None:
            raise redis.ConnectionError("gone")
        return claim(job_id, worker_id)

    monkeypatch.setattr(store, "claim", refuses_three_times)
    job_id = admit(store)
    worker.claim_next()
    assert worker.drain(scaled(5))
    assert store.read(job_id).status is Status.SUCCEEDED


@pytest.mark.parametrize("prompt", ["short", "long " * 2000])
def test_long_prompts_are_prepared_outside_the_consumers_thread(
    make_worker: Callable[..., Worker], store: JobStore, prompt: str
) -> None:
    threads: list[str] = []

    class RecordsThreads(ScriptedEngine):
        def prepare(self, request: JobRequest) -> Prompt:
            threads.append(threading.current_thread().name)
            return super().prepare(JobRequest(kind=Kind.GENERATE, prompt="text"))

    worker = make_worker(RecordsThreads())
    admit(store, prompt)
    worker.claim_next()
    assert worker.drain(scaled(5))
    assert threads == [threading.current_thread().name] if prompt == "short" else threads[0].startswith("prepare")


def announced(redis_client: RedisClient, worker: Worker) -> WorkerInfo:
    worker.announce()
    (info,) = read_workers(redis_client)
    return info


def test_a_worker_whose_step_takes_too_long_is_stalled_until_the_step_ends(
    make_worker: Callable[..., Worker], store: JobStore, redis_client: RedisClient
) -> None:
    engine = Gated(slots=1)
    worker = make_worker(engine, replace(CONFIG, worker=WorkerConfig(stall_seconds=1)))
    worker.consumer_turned()
    admit(store, "a text of many tokens")
    worker.claim_next()
    assert announced(redis_client, worker).state is WorkerState.READY

    def is_stalled() -> bool:
        worker.consumer_turned()
        return announced(redis_client, worker).state is WorkerState.STALLED

    until(is_stalled)
    info = announced(redis_client, worker)
    assert "the model has stood still for 1 s, longer than worker.stall_seconds" in info.detail
    engine.go.set()
    assert worker.drain(scaled(5))
    until(lambda: not is_stalled())


def test_a_worker_that_waits_for_jobs_is_stalled_only_if_its_consumer_does_not_turn(
    make_worker: Callable[..., Worker], redis_client: RedisClient
) -> None:
    worker = make_worker(Gated(slots=1), replace(CONFIG, worker=WorkerConfig(stall_seconds=1)))
    time.sleep(1.1)
    info = announced(redis_client, worker)
    assert info.state is WorkerState.STALLED and "Celery's consumer has stood still" in info.detail
    worker.consumer_turned()
    assert announced(redis_client, worker).state is WorkerState.READY


def test_the_time_that_it_takes_to_prepare_a_job_is_a_part_of_its_own(
    make_worker: Callable[..., Worker], store: JobStore
) -> None:
    class Slow(ScriptedEngine):
        def prepare(self, request: JobRequest) -> Prompt:
            time.sleep(0.3)
            return super().prepare(request)

    worker = make_worker(Slow())
    job_id = store.admit(JobRequest(kind=Kind.GENERATE, prompt="text", timeout_seconds=0.2), ME).id
    worker.claim_next()
    assert worker.drain(scaled(5))
    error = store.read(job_id).error
    assert error is not None and error.code == "timeout"


def test_an_embedding_ends_like_any_other_job(make_worker: Callable[..., Worker], store: JobStore) -> None:
    worker = make_worker(Instant(CONFIG, lambda *_: None))
    job_id = store.admit(JobRequest(kind=Kind.EMBED, texts=("a", "b")), ME).id
    worker.claim_next()
    assert worker.drain(scaled(5))
    job = store.read(job_id)
    assert job.output is not None and job.output.embeddings == [[1.0, 0.0], [1.0, 0.0]]
    assert job.usage is not None and job.usage.prompt_tokens == 2


def test_canceling_a_running_job_reaches_the_batch_loop(make_worker: Callable[..., Worker], store: JobStore) -> None:
    engine = Gated(slots=1)
    worker = make_worker(engine)
    job_id = admit(store, "a text of many tokens")
    worker.claim_next()
    time.sleep(0.05)
    cancel(worker, job_id)
    engine.go.set()
    assert worker.drain(scaled(5))
    assert store.read(job_id).status is Status.CANCELED


def test_an_unreachable_redis_does_not_fail_the_model(store: JobStore) -> None:
    unreachable = connect("redis://127.0.0.1:1/0", retries=0)
    worker = Worker(CONFIG, unreachable, store, "worker-1")
    worker.serve(BatchRunner(ScriptedEngine(), CONFIG.worker, worker))
    assert worker.info.state is WorkerState.READY
    worker.close()


def test_a_job_of_a_dead_worker_continues_where_it_stopped(
    make_worker: Callable[..., Worker], store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    job_id = admit(store, "0123456789abcdefghijklmnopqrstuvwxyz")
    leave_behind(store, redis_client, job_id, published="0123")
    lose_worker(redis_url, job_id)
    worker = make_worker(ScriptedEngine())
    worker.claim_next()
    assert wait_until_final(store, job_id).status is Status.SUCCEEDED
    job = store.read(job_id)
    assert job.output is not None and job.output.text == "0123456789abcdefghijklmnopqrstuvwxyz"
    assert job.usage is not None and (job.usage.completion_tokens, job.attempt) == (36, 2)
    events = read_events(redis_client, [(job_id, FROM_START)])[0]
    assert "".join(entry.event.text for entry in events if isinstance(entry.event, Delta)) == job.output.text
    assert [entry.event.attempt for entry in events if isinstance(entry.event, Started)] == [1, 2]


def test_a_worker_that_lost_a_job_claims_it_again_only_when_the_old_attempt_has_ended(
    make_worker: Callable[..., Worker], store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    class StepByStep(ScriptedEngine):
        permits = threading.Semaphore(0)

        def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
            assert self.permits.acquire(timeout=scaled(10))
            return super().step(chunks)

    engine = StepByStep()
    job_id = store.admit(JobRequest(kind=Kind.GENERATE, prompt="a text", stream=True), ME).id
    worker = make_worker(engine)
    worker.claim_next()
    engine.permits.release()
    until(lambda: read_published(redis_client, job_id).tokens)
    lose_worker(redis_url, job_id)
    engine.permits.release()  # its second token is refused, while the next step runs
    time.sleep(0.2)
    steps = len(engine.steps)
    worker.claim_next()
    time.sleep(0.2)
    assert (store.read(job_id).status, worker.active_jobs, len(engine.steps)) == (Status.PROCESSING, 2, steps)
    engine.permits.release()
    until(lambda: worker.active_jobs == 1)  # the old attempt has ended
    engine.permits.release(20)
    job = wait_until_final(store, job_id)
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 2)
    assert job.output is not None and job.output.text == "a text"


def test_while_a_suspect_is_on_trial_nothing_is_fetched(
    make_worker: Callable[..., Worker], store: JobStore, redis_url: str
) -> None:
    engine, room_freed = Gated(slots=4), threading.Event()
    job_id = admit(store)
    store.claim("worker-0")
    lose_worker(redis_url, job_id)
    worker = make_worker(engine)
    worker.on_slot_free = room_freed.set
    worker.claim_next()
    assert not worker.has_room()
    engine.go.set()
    assert room_freed.wait(scaled(5))
    assert worker.has_room()


def test_a_stopping_worker_hands_back_its_running_jobs_with_their_output(
    make_worker: Callable[..., Worker], store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    class StepsSlowly(ScriptedEngine):
        def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
            time.sleep(0.02)
            return super().step(chunks)

    text = "a text that takes a second to say, more or less"
    job_id = admit(store, text)
    worker = make_worker(StepsSlowly())
    worker.claim_next()
    assert not worker.drain(0.3)
    assert worker.hand_back()
    job = store.read(job_id)
    assert (job.status, worker.active_jobs) == (Status.QUEUED, 0)
    published = read_published(redis_client, job_id).text
    assert published and text.startswith(published)
    another = make_worker(ScriptedEngine())
    another.claim_next()
    assert wait_until_final(store, job_id).output.text == text  # type: ignore[union-attr]


def test_a_worker_that_is_to_end_at_once_does_not_wait_for_its_jobs(
    make_worker: Callable[..., Worker], store: JobStore
) -> None:
    worker = make_worker(engine := Gated(slots=1))
    job_id = admit(store)
    worker.claim_next()
    hurry = threading.Event()
    threading.Timer(0.2, hurry.set).start()
    assert not worker.drain(600, hurry)
    engine.go.set()
    assert worker.hand_back()
    assert store.read(job_id).status is Status.QUEUED


def test_a_worker_forgets_at_its_start_why_the_last_one_of_its_host_failed(
    make_worker: Callable[..., Worker], redis_client: RedisClient
) -> None:
    worker = make_worker(Gated(slots=1))
    announce(redis_client, replace(worker.info, id="worker-0-0", state=WorkerState.FAILED, detail="no such file"))
    worker.announce_from_now()
    until(lambda: [(info.id, info.detail) for info in read_workers(redis_client)] == [("worker-1", "")])


def test_a_step_of_loading_that_has_ended_has_no_progress(
    make_worker: Callable[..., Worker], redis_client: RedisClient
) -> None:
    worker = make_worker(Gated(slots=1))
    worker.report_progress("reading the weights", 0.5)
    assert worker.info.progress == 0.5
    worker.report_progress("reading the weights", 1.0)
    assert worker.info.progress is None


def test_a_job_canceled_before_it_runs_ends_at_once(make_worker: Callable[..., Worker], store: JobStore) -> None:
    preparing, go = threading.Event(), threading.Event()

    class PreparesSlowly(ScriptedEngine):
        def prepare(self, request: JobRequest) -> Prompt:
            preparing.set()
            assert go.wait(scaled(10))
            return super().prepare(request)

    worker = make_worker(PreparesSlowly())
    job_id = admit(store, "long " * 2000)
    worker.claim_next()
    assert preparing.wait(scaled(5))
    cancel(worker, job_id)
    assert wait_until_final(store, job_id).status is Status.CANCELED
    go.set()
    assert worker.drain(scaled(5))


def test_a_job_canceled_before_its_earlier_output_is_read_keeps_that_output(
    make_worker: Callable[..., Worker],
    store: JobStore,
    redis_client: RedisClient,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, go = threading.Event(), threading.Event()

    def read_slowly(client: RedisClient, job_id: str) -> Published:
        reading.set()
        assert go.wait(scaled(10))
        return read_published(client, job_id)

    monkeypatch.setattr(claims, "read_published", read_slowly)
    job_id = admit(store, "0123456789")
    leave_behind(store, redis_client, job_id, published="0123")
    lose_worker(redis_url, job_id)
    worker = make_worker(ScriptedEngine())
    worker.claim_next()
    assert reading.wait(scaled(5))
    cancel(worker, job_id)
    time.sleep(0.1)
    assert store.read(job_id).status is Status.PROCESSING
    go.set()
    assert worker.drain(scaled(5))
    job = store.read(job_id)
    assert job.output is not None and (job.status, job.output.text) == (Status.CANCELED, "0123")


def cancel(worker: Worker, job_id: str) -> None:
    job = worker._jobs.get(job_id)
    assert job is not None
    worker.cancel(job)


def leave_behind(store: JobStore, client: RedisClient, job_id: str, *, published: str) -> None:
    """Leave a job to a worker that has claimed it, has published some of its output, and has vanished."""
    claim = store.claim("worker-0")
    assert claim is not None
    delta = Delta(published, tuple(published.encode()))
    write = OutputWrite(job_id=job_id, token=claim.token, delta=delta)
    OutputWriter(client, model="m", ttl_seconds=60).write([write])


def wait_until_final(store: JobStore, job_id: str) -> Job:
    deadline = time.monotonic() + scaled(10)
    while not (job := store.read(job_id)).status.is_final:
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


@pytest.mark.parametrize("restart_helps", [True, False])
def test_requests_wait_for_a_worker_that_has_given_up_where_a_restart_helps(
    redis_client: RedisClient, store: JobStore, restart_helps: bool
) -> None:
    worker = Worker(CONFIG, redis_client, store, "worker-1")
    worker.announce()
    worker.give_up("there is no such file", restart_helps=restart_helps)
    assert bool(redis_client.exists(keys.alive("m"))) == restart_helps
    assert [info.state for info in read_workers(redis_client)] == [WorkerState.FAILED]
