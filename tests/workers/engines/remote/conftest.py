"""A worker of the openai family in this process, over a real Valkey, and an upstream server with scripted answers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.config.settings import Config, JobsConfig, WorkerConfig
from app.jobs.job import ANONYMOUS, Chat, Job, JobRequest, Kind
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.principals import key_named
from tests.waiting import until
from tests.workers.engines.remote.upstream_server import MODEL, Server, upstream_server
from workers.engines.remote import failures
from workers.engines.remote.runner import RemoteRunner
from workers.worker import Worker

API_KEY = "sk-ours"
Submit = Callable[..., str]


@pytest.fixture
def server() -> Iterator[Server]:
    with upstream_server() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(failures, "FIRST_PAUSE_SECONDS", 0.01)


def config_for(server: Server, **model_params: Any) -> Config:
    return Config(
        model_name="m",
        model_family="openai",
        setup_params={"base_url": server.url, "model": MODEL, "api_key": API_KEY},
        model_params=model_params,
        worker=WorkerConfig(slots=8),
        jobs=JobsConfig(ttl=60, timeout=20),
    )


@pytest.fixture
def make_worker(server: Server, redis_client: RedisClient, store: JobStore) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(name: str = "worker-1", **model_params: Any) -> Worker:
        config = config_for(server, **model_params)
        worker = Worker(config, redis_client, store, name)
        made.append(worker)
        worker.serve(RemoteRunner(config, worker.report_progress, worker))
        return worker

    yield make
    for worker in made:
        worker.close()


class JobClient:
    """Submits jobs to a worker and reads the finished jobs."""

    def __init__(self, worker: Worker, store: JobStore, owner: str = ANONYMOUS) -> None:
        self.owner = owner
        self.worker = worker
        self.store = store

    def begin(self, prompt: str = "a prompt", *, messages: list[dict[str, Any]] | None = None, **options: Any) -> str:
        chat_options = options.pop("chat", {})
        chat = None if messages is None else Chat(messages=messages, **chat_options)
        fields: dict[str, Any] = {"kind": Kind.GENERATE, "prompt": "" if chat else prompt, "chat": chat, **options}
        job_id = self.store.admit(JobRequest(**fields), key_named(self.owner)).id
        self.worker.claim_next()
        return job_id

    def cancel(self, job_id: str) -> None:
        job = self.worker._jobs.get(job_id)
        assert job is not None
        self.worker.cancel(job)

    def wait_for(self, job_id: str) -> Job:
        until(lambda: self.store.read(job_id).status.is_final)
        return self.store.read(job_id)

    def run(self, *args: Any, **options: Any) -> Job:
        return self.wait_for(self.begin(*args, **options))


@pytest.fixture
def client(make_worker: Callable[..., Worker], store: JobStore) -> JobClient:
    return JobClient(make_worker(), store)
