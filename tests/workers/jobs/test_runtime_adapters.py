"""Adapters that a worker loads while it runs, and the jobs that wait for them: a real worker over a real Valkey."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.config.adapters import Adapter, AdaptersConfig
from app.config.settings import CacheConfig, Config, JobsConfig
from app.errors import InvalidRequest, ModelUnavailable
from app.jobs.adapter_registry import AdapterRegistry
from app.jobs.job import AdapterUse, Job, JobRequest, Kind, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from app.jobs.worker_registry import read_workers
from tests.lost_worker import lose_worker
from tests.principals import ME
from tests.waiting import scaled, until
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.runner import BatchRunner
from workers.engines.base import Prompt
from workers.jobs import runtime_adapters
from workers.worker import Worker


class Adapting(ScriptedEngine):
    """Loads any file but one with "damaged" in its name, when it is allowed to."""

    def __init__(self) -> None:
        super().__init__(slots=2)
        self.may_load = threading.Event()
        self.may_load.set()
        self.adapters: set[tuple[str, str]] = set()
        self.computed: list[tuple[AdapterUse, ...]] = []

    def load_adapter(self, adapter: Adapter) -> None:
        assert self.may_load.wait(scaled(10))
        if "damaged" in str(adapter.path):
            raise ModelUnavailable("lora_path: it is damaged")
        if "odd" in str(adapter.path):
            raise RuntimeError("odd")
        self.adapters.add((adapter.name, adapter.version))

    def unload_adapter(self, name: str, version: str) -> None:
        self.adapters.remove((name, version))

    def prepare(self, request: JobRequest) -> Prompt:
        if not self.adapters.issuperset((use.name, use.version) for use in request.adapters):
            raise InvalidRequest("prepared without its adapter")
        self.computed.append(request.adapters)
        return super().prepare(request)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("good", "damaged", "odd"):
        (tmp_path / name).touch()
    return Config(
        model_name="m",
        models_dir=tmp_path,
        jobs=JobsConfig(ttl=60),
        cache=CacheConfig(ttl=60),
        adapters=AdaptersConfig(runtime_loading=True),
    )


@pytest.fixture
def registry(redis_client: RedisClient) -> AdapterRegistry:
    return AdapterRegistry(redis_client, "m")


Start = Callable[..., tuple[Worker, Adapting]]


@pytest.fixture
def start(
    redis_client: RedisClient, store: JobStore, config: Config, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    monkeypatch.setattr("workers.jobs.leases.CONTROL_POLL_SECONDS", 0.05)  # a worker closes after one
    made: list[tuple[Worker, Adapting]] = []

    def start(engine: Adapting | None = None, worker_id: str = "here-1-worker") -> tuple[Worker, Adapting]:
        engine = engine or Adapting()
        worker = Worker(config, redis_client, store, worker_id)
        worker.announce_from_now()
        worker.serve(BatchRunner(engine, config.worker, worker))
        made.append((worker, engine))
        return made[-1]

    yield start
    for worker, engine in made:
        engine.may_load.set()
        worker.close()


def serve(registry: AdapterRegistry, name: str = "sql", source: str = "good", *, replaces: bool = False) -> str:
    version = registry.add(name, source, replaces=replaces)
    registry.serve(name, version, replaces=replaces)
    return version


def submit(store: JobStore, version: str) -> str:
    uses = (AdapterUse(name="sql", scale=1.0, version=version),)
    return store.admit(JobRequest(kind=Kind.GENERATE, prompt="text", adapters=uses), ME).id


def ended(store: JobStore, job_id: str) -> Job:
    until(lambda: store.read(job_id).status.is_final)
    return store.read(job_id)


def states(client: RedisClient) -> dict[str, str]:
    (worker,) = read_workers(client)
    return dict(worker.adapters)


def test_a_worker_loads_what_is_registered_says_so_and_unloads_what_is_removed(
    start: Start, registry: AdapterRegistry, redis_client: RedisClient
) -> None:
    first = serve(registry)
    _, engine = start()
    assert engine.adapters == {("sql", first)}, "before it is ready"
    second = registry.add("poems", "good", replaces=False)
    took = until(lambda: states(redis_client) == {first: "", second: ""})
    assert took < scaled(runtime_adapters.SYNC_SECONDS / 2), "the control channel brings it"
    assert engine.adapters == {("sql", first), ("poems", second)}
    registry.remove("sql", first)
    until(lambda: engine.adapters == {("poems", second)})
    until(lambda: states(redis_client) == {second: ""}, seconds=15)


def test_a_lost_message_is_made_up_for(
    start: Start, registry: AdapterRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_adapters, "SYNC_SECONDS", 0.1)
    monkeypatch.setattr(Worker, "sync_adapters", lambda worker: None)
    _, engine = start()
    version = serve(registry)
    until(lambda: engine.adapters == {("sql", version)})


@pytest.mark.parametrize(
    ("source", "reason"), [("damaged", "it is damaged"), ("odd", "RuntimeError"), ("..", "models_dir")]
)
def test_why_an_adapter_cannot_be_loaded_is_announced_and_its_jobs_fail_with_it(
    start: Start, registry: AdapterRegistry, redis_client: RedisClient, store: JobStore, source: str, reason: str
) -> None:
    worker, _ = start()
    version = serve(registry, source=source)
    until(lambda: reason in states(redis_client).get(version, ""))
    job_id = submit(store, version)
    worker.claim_next()
    job = ended(store, job_id)
    assert job.error is not None and job.error.code == "adapter_unavailable" and reason in job.error.message


def test_a_job_waits_without_a_slot_until_its_worker_has_the_adapter(
    start: Start, registry: AdapterRegistry, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.jobs.slow_preparations.SLOW_SECONDS", 0.05)
    worker, engine = start()
    engine.may_load.clear()
    version = serve(registry)
    waiting = [submit(store, version) for _ in range(2)]
    for _ in waiting:
        worker.claim_next()
    until(worker.has_room)
    other = store.admit(JobRequest(kind=Kind.GENERATE, prompt="text"), ME).id
    worker.claim_next()
    assert ended(store, other).status is Status.SUCCEEDED
    assert {store.read(job).status for job in waiting} == {Status.PROCESSING}
    engine.may_load.set()
    assert {ended(store, job).status for job in waiting} == {Status.SUCCEEDED}


def test_a_job_does_not_wait_for_ever(
    start: Start, registry: AdapterRegistry, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_adapters, "WAIT_SECONDS", 0.2)
    worker, engine = start()
    engine.may_load.clear()
    job_id = submit(store, serve(registry))
    worker.claim_next()
    error = ended(store, job_id).error
    assert error is not None and (error.code, "within 0.2 s" in error.message) == ("adapter_unavailable", True)


def test_a_job_that_waits_for_its_adapter_can_be_canceled(
    start: Start, registry: AdapterRegistry, store: JobStore
) -> None:
    worker, engine = start()
    engine.may_load.clear()
    job_id = submit(store, serve(registry))
    worker.claim_next()
    store.cancel(job_id)
    assert ended(store, job_id).status is Status.CANCELED


def test_a_waiting_job_returns_to_the_queue_when_its_worker_stops(
    start: Start, registry: AdapterRegistry, store: JobStore
) -> None:
    worker, engine = start()
    engine.may_load.clear()
    job_id = submit(store, serve(registry))
    worker.claim_next()
    assert worker.hand_back()
    assert store.read(job_id).status is Status.QUEUED
    engine.may_load.set()


def test_a_suspect_waits_for_its_adapter_and_then_runs_alone(
    start: Start, registry: AdapterRegistry, redis_url: str, store: JobStore
) -> None:
    worker, engine = start()
    engine.may_load.clear()
    job_id = submit(store, serve(registry))
    store.claim("another")
    lose_worker(redis_url, job_id)
    worker.claim_next()
    assert not worker.has_room(), "a suspect"
    engine.may_load.set()
    assert ended(store, job_id).status is Status.SUCCEEDED and engine.computed


def test_jobs_of_an_adapter_that_was_unloaded_fail_and_those_of_one_that_was_replaced_get_the_new_one(
    start: Start, registry: AdapterRegistry, store: JobStore
) -> None:
    worker, engine = start()
    before = serve(registry)
    old = submit(store, before)
    after = serve(registry, replaces=True)
    until(lambda: engine.adapters == {("sql", after)})
    worker.claim_next()
    assert ended(store, old).status is Status.SUCCEEDED
    assert [use.version for (use,) in engine.computed] == [after]
    removed = submit(store, after)
    registry.remove("sql", after)
    until(lambda: not engine.adapters)
    worker.claim_next()
    error = ended(store, removed).error
    assert error is not None and error.code == "invalid_request" and "not loaded any more" in error.message


def test_the_response_cache_never_mixes_versions_of_a_name(
    start: Start, registry: AdapterRegistry, store: JobStore
) -> None:
    worker, engine = start()
    request = JobRequest(kind=Kind.GENERATE, prompt="text", params={"temperature": 0})
    for replaces in (False, True):
        version = serve(registry, replaces=replaces)
        until(lambda version=version: engine.adapters == {("sql", version)})
        uses = (AdapterUse(name="sql", scale=1.0, version=version),)
        for _ in range(2):
            job_id = store.admit(replace(request, adapters=uses), ME).id
            worker.claim_next()
            ended(store, job_id)
    assert [use.version for (use,) in engine.computed].count(version) == 2


def test_an_adapter_that_ended_a_worker_is_not_tried_by_the_next_one(
    start: Start, registry: AdapterRegistry, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(Adapting):
        def load_adapter(self, adapter: Adapter) -> None:
            raise SystemExit  # the thread ends here, as the process would

    version = serve(registry)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with monkeypatch.context() as patch:
        patch.setattr("workers.jobs.load_attempts.LoadAttempts._forget", lambda *_: None)
        patch.setattr(threading, "excepthook", lambda _: None)
        dead, _ = start(Deadly(), f"here-{process.pid}-dead")
        dead.close()  # its process would be gone: it must not try again
    _, engine = start(worker_id="here-1-next")
    assert engine.adapters == set()
    assert any(
        "1 worker has died while loading the adapter 'sql'" in one.adapters.get(version, "")
        for one in read_workers(redis_client)
    )
