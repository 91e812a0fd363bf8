"""Which requests count as equal, and which answers are kept: a worker in this process, a real Valkey."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.config.settings import CacheConfig, Config, JobsConfig
from app.jobs import keys
from app.jobs.events import read_published
from app.jobs.job import ANONYMOUS, Chat, FinishReason, Job, JobRequest, Kind, OutputSource, Priority, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim, JobStore
from tests.lost_worker import lose_worker
from tests.principals import ME, key_named
from tests.waiting import scaled
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.runner import BatchRunner
from workers.engines.base import Chunk, Prompt, Sampled
from workers.jobs.response_cache import ResponseCache
from workers.worker import Worker

CONFIG = Config(model_name="m", jobs=JobsConfig(ttl=60))
KEEPS = replace(CONFIG, cache=CacheConfig(ttl=60))
REQUEST = JobRequest(kind=Kind.GENERATE, prompt="text", params={"temperature": 0})
CLAIM = Claim(
    job_id="1", owner="me", tenant="me", request=REQUEST, token=1, attempt=1, created_at=0, started_at=0, followed=False
)


class Greedy(ScriptedEngine):
    """Generates its prompt, and is deterministic at temperature 0. No step runs until `go` is set."""

    def __init__(self, slots: int = 2) -> None:
        super().__init__(slots=slots)
        self.go = threading.Event()
        self.embedded = 0

    def prepare(self, request: JobRequest) -> Prompt:
        prompt = super().prepare(request)
        prompt.is_deterministic = request.params.get("temperature") == 0
        return prompt

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        assert self.go.wait(scaled(10))
        return super().step(chunks)

    def embed(self, texts: Sequence[object], *, first: int = 0) -> list[tuple[list[float], int]]:
        self.embedded += len(texts)
        return [([1.0, 0.0], 3) for _ in texts]


@pytest.fixture
def make_worker(redis_client: RedisClient, store: JobStore) -> Iterator[Callable[..., tuple[Worker, Greedy]]]:
    made: list[Worker] = []

    def make(config: Config, slots: int = 2) -> tuple[Worker, Greedy]:
        worker, engine = Worker(config, redis_client, store, f"worker-{len(made)}"), Greedy(slots)
        worker.serve(BatchRunner(engine, config.worker, worker))
        made.append(worker)
        return worker, engine

    yield make
    for worker in made:
        worker.close()


def run(worker: Worker, store: JobStore, owner: str = "me", **request: Any) -> str:
    job_id = store.admit(replace(REQUEST, **request), key_named(owner)).id
    worker.claim_next()
    return job_id


def answer(worker: Worker, store: JobStore, owner: str = "me", **request: Any) -> Job:
    job_id = run(worker, store, owner, **request)
    assert worker.drain(scaled(5))
    return store.read(job_id)


def source(job: Job) -> OutputSource | None:
    assert job.metrics is not None
    return job.metrics.source


def key_of(config: Config, claim: Claim = CLAIM, tokens: Sequence[int] = (1, 2)) -> str | None:
    redis: Any = None
    return ResponseCache(redis, config).key(claim, tokens)


JOB_OPTIONS: list[dict[str, Any]] = [
    {"priority": Priority.LOW},
    {"timeout_seconds": 5.0},
    {"ttl_seconds": 5},
    {"expires_in_seconds": 1.0},
    {"not_before": 1.0, "delay_seconds": 5.0},
    {"stream": True},
    {"response": {"id": "resp_1"}},
]


@pytest.mark.parametrize("options", JOB_OPTIONS)
def test_options_of_the_job_do_not_change_its_key(options: dict[str, Any]) -> None:
    assert key_of(CONFIG, replace(CLAIM, request=replace(REQUEST, **options))) == key_of(CONFIG)


def test_everything_that_affects_the_answer_changes_its_key() -> None:
    schema = {"properties": {"a": {}, "b": {}}}
    reordered = {"properties": {"b": {}, "a": {}}}
    requests: list[dict[str, Any]] = [
        {},
        {"prompt": "text "},
        {"prompt_tokens": (1, 2)},
        {"chat": Chat(messages=[{"role": "user", "content": "text"}])},
        {"chat": Chat(messages=[{"role": "user", "content": "text"}], variables={"enable_thinking": True})},
        *({"params": {"temperature": 0, name: value}} for name, value in [("seed", 1), ("seed", 2), ("stop", ["a"])]),
        *({"params": {"temperature": 0, name: 3}} for name in ("max_tokens", "logprobs", "top_k")),
        *({"params": {"temperature": 0, "json_schema": each}} for each in (schema, reordered)),
    ]
    cache_keys = [key_of(CONFIG, replace(CLAIM, request=replace(REQUEST, **each))) for each in requests]
    cache_keys.append(key_of(CONFIG, tokens=[1, 2, 3]))  # as from a chat template that contains the date
    cache_keys.append(key_of(CONFIG, replace(CLAIM, tenant="you")))
    cache_keys.append(key_of(CONFIG, replace(CLAIM, request=replace(REQUEST, cache_salt="salt"))))
    for changed in ({"model_params": {"type_k": "q8_0"}}, {"setup_params": {"path": "a"}}, {"model_name": "n"}):
        cache_keys.append(key_of(replace(CONFIG, **changed)))  # type: ignore[arg-type]
    assert None not in cache_keys and len(set(cache_keys)) == len(cache_keys)


def test_a_suspect_or_resumed_job_has_no_key() -> None:
    assert key_of(CONFIG, replace(CLAIM, losses=1)) is None, "it may be what killed its worker"
    assert key_of(CONFIG, replace(CLAIM, published_tokens=3)) is None, "it continues where another attempt ended"
    assert key_of(CONFIG, replace(CLAIM, attempt=2)) == key_of(CONFIG)


def test_answers_are_shared_inside_a_tenant_and_across_keys_between_tenants() -> None:
    colleague, stranger = replace(CLAIM, owner="you"), replace(CLAIM, owner="you", tenant="you")
    assert key_of(CONFIG, colleague) == key_of(CONFIG) != key_of(CONFIG, stranger)
    shared = replace(CONFIG, cache=CacheConfig(across_keys=True))
    assert key_of(shared, stranger) == key_of(shared) != key_of(CONFIG)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, cache=CacheConfig(across_keys=True))])
@pytest.mark.parametrize("owner", ["me", ANONYMOUS])
def test_a_salt_divides_every_scope(config: Config, owner: str) -> None:
    redis: Any = None
    cache, claims = (
        ResponseCache(redis, config),
        [
            replace(CLAIM, owner=owner, tenant=owner, request=replace(REQUEST, cache_salt=salt))
            for salt in ("", "a", "b")
        ],
    )
    assert len({cache.scope(claim) for claim in claims}) == len({cache.key(claim, ()) for claim in claims}) == 3


def test_a_job_of_a_lost_worker_and_jobs_without_a_seed_compute_their_own_answers(
    make_worker: Callable[..., tuple[Worker, Greedy]], store: JobStore, redis_url: str
) -> None:
    worker, engine = make_worker(KEEPS, slots=4)
    engine.go.set()
    answer(worker, store)
    suspect = store.admit(REQUEST, ME).id
    store.claim("worker-0")
    lose_worker(redis_url, suspect)
    worker.claim_next()
    drawn = [run(worker, store, params={}) for _ in range(2)]
    assert worker.drain(scaled(5))
    assert {source(store.read(job_id)) for job_id in [suspect, *drawn]} == {OutputSource.COMPUTED}


def test_an_answer_is_kept_for_later_equal_requests_and_no_longer_than_its_job(
    make_worker: Callable[..., tuple[Worker, Greedy]], store: JobStore, redis_client: RedisClient
) -> None:
    worker, engine = make_worker(KEEPS)
    engine.go.set()
    first = answer(worker, store)
    second = answer(worker, store, stream=True)
    assert (source(first), source(second)) == (OutputSource.COMPUTED, OutputSource.CACHED)
    assert len(engine.steps) == 5, "four tokens and the end, once"
    assert second.output == first.output and second.output is not None
    assert second.output.finish_reason is FinishReason.STOP
    assert second.usage is not None and (second.usage.completion_tokens, second.usage.cached_tokens) == (4, 3)
    assert read_published(redis_client, second.id).text == "text"
    [entry] = redis_client.keys("llm:cached:*")  # type: ignore[attr-defined]
    assert redis_client.get(entry) == first.id and 0 < redis_client.ttl(entry) <= 60  # type: ignore[attr-defined]
    assert source(answer(worker, store, "you")) is OutputSource.COMPUTED
    assert source(answer(worker, store, params={"temperature": 0, "max_tokens": 2})) is OutputSource.COMPUTED
    assert source(answer(worker, store, params={})) is OutputSource.COMPUTED
    store.delete(first)
    assert source(answer(worker, store)) is OutputSource.COMPUTED, "a deleted answer is not used"
    another, other_engine = make_worker(KEEPS)
    assert source(answer(another, store)) is OutputSource.CACHED and not other_engine.steps, "any worker of the model"


def test_embeddings_are_kept_too(make_worker: Callable[..., tuple[Worker, Greedy]], store: JobStore) -> None:
    worker, engine = make_worker(KEEPS)
    texts: dict[str, Any] = {"kind": Kind.EMBED, "prompt": "", "texts": ("a", "b"), "params": {}}
    jobs = [answer(worker, store, **texts) for _ in range(2)]
    assert [source(job) for job in jobs] == [OutputSource.COMPUTED, OutputSource.CACHED]
    assert jobs[0].output == jobs[1].output and engine.embedded == 2
    assert jobs[1].usage is not None and jobs[1].usage.prompt_tokens == jobs[1].usage.cached_tokens == 6


def test_only_answers_of_succeeded_jobs_are_kept(
    make_worker: Callable[..., tuple[Worker, Greedy]], store: JobStore
) -> None:
    worker, engine = make_worker(KEEPS)
    canceled = run(worker, store)
    time.sleep(0.05)
    job = worker._jobs.get(canceled)
    assert job is not None
    worker.cancel(job)
    engine.go.set()
    assert worker.drain(scaled(5)) and store.read(canceled).status is Status.CANCELED
    assert answer(worker, store, prompt="fails!").status is Status.FAILED
    assert answer(worker, store, prompt="fails!").status is Status.FAILED
    assert source(answer(worker, store)) is OutputSource.COMPUTED


def test_nothing_is_kept_unless_it_is_configured(
    make_worker: Callable[..., tuple[Worker, Greedy]], store: JobStore, redis_client: RedisClient
) -> None:
    worker, engine = make_worker(CONFIG)
    engine.go.set()
    assert [source(answer(worker, store)) for _ in range(2)] == [OutputSource.COMPUTED] * 2
    assert redis_client.keys(keys.cached("*")) == []  # type: ignore[attr-defined]
