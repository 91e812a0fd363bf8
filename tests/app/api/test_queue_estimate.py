"""The estimates of waiting times, read from a real Valkey."""

import threading
import time
from dataclasses import replace

import pytest
import redis
from flask.testing import FlaskClient

from app.api import queue_estimate
from app.api.queue_estimate import MAX_RETRY_SECONDS, WORKER_START_SECONDS, QueueEstimate
from app.config.settings import Config
from app.jobs import keys
from app.jobs.job import Job, Kind, Priority, Status
from app.jobs.queue_positions import QueuePosition
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import new_job_id
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn
from tests.waiting import scaled


@pytest.fixture
def estimate(redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> QueueEstimate:
    """An estimate for the model "m" that reads Redis for every question."""
    monkeypatch.setattr(queue_estimate, "FRESH_SECONDS", 0.0)
    return QueueEstimate(redis_client, model="m")


def serve(client: RedisClient, slots: int, *, name: str = "w", model: str = "m", state: str = "ready") -> None:
    announce(client, WorkerInfo(id=name, model=model, family="test", state=WorkerState(state), slots=slots))


def measure(client: RedisClient, seconds: float, *, model: str = "m") -> None:
    """Record that jobs have lately taken so many seconds."""
    client.execute_command("HSET", keys.shares(model), "seconds", str(seconds))


def test_a_refused_request_comes_back_when_those_that_wait_should_have_started(
    estimate: QueueEstimate, redis_client: RedisClient
) -> None:
    serve(redis_client, 4)
    measure(redis_client, 1.5)
    assert [estimate.retry_after_seconds(waiting) for waiting in (8, 9, 40)] == [3, 4, 15]


def test_all_ready_workers_of_the_model_count_and_no_others(estimate: QueueEstimate, redis_client: RedisClient) -> None:
    measure(redis_client, 2.0)
    measure(redis_client, 50.0, model="n")
    serve(redis_client, 3, name="a")
    serve(redis_client, 5, name="b")
    serve(redis_client, 100, name="c", state="loading")
    serve(redis_client, 100, name="d", state="draining")
    serve(redis_client, 100, name="e", state="failed")
    serve(redis_client, 100, name="f", model="n")
    assert estimate.retry_after_seconds(40) == 10


def test_retry_after_has_a_minimum_and_a_maximum(estimate: QueueEstimate, redis_client: RedisClient) -> None:
    serve(redis_client, 32)
    measure(redis_client, 0.001)
    assert estimate.retry_after_seconds(0) == estimate.retry_after_seconds(1) == 1
    measure(redis_client, 600)
    assert estimate.retry_after_seconds(1000) == MAX_RETRY_SECONDS == 120


def test_as_long_as_nothing_is_measured_a_job_counts_a_second(
    estimate: QueueEstimate, redis_client: RedisClient
) -> None:
    serve(redis_client, 2)
    assert estimate.retry_after_seconds(30) == 15


def test_without_a_worker_the_estimate_assumes_one_slot_and_the_start_of_a_worker(
    estimate: QueueEstimate, redis_client: RedisClient
) -> None:
    measure(redis_client, 3.0)
    assert [estimate.retry_after_seconds(waiting) for waiting in (0, 1, 2, 20)] == [WORKER_START_SECONDS] * 2 + [6, 60]


def test_jobs_of_several_models_have_separate_estimates(estimate: QueueEstimate, redis_client: RedisClient) -> None:
    serve(redis_client, 1, name="a")
    serve(redis_client, 2, name="b", model="n")
    for model in ("m", "n"):
        measure(redis_client, 10.0, model=model)
    jobs = [job(model) for model in ("m", "n", "unheard-of")]
    now = time.time()
    first, second, third = estimate.start_times(jobs, [QueuePosition(2, 2.0)] * 3)
    assert first is not None and second is not None and third is None
    assert [first - now, second - now] == pytest.approx([20, 5], abs=1)


def job(model: str) -> Job:
    return Job(
        id=new_job_id(),
        kind=Kind.GENERATE,
        model=model,
        status=Status.QUEUED,
        priority=Priority.NORMAL,
        owner="me",
        created_at=0.0,
    )


def test_nothing_is_read_where_no_job_waits() -> None:
    estimate = QueueEstimate(connect("redis://127.0.0.1:1/0", retries=0), model="m")
    estimate._read = pytest.fail  # type: ignore[method-assign,assignment]
    assert estimate.start_times([job("m")], [None]) == [None]


def test_redis_that_is_away_makes_no_error_of_an_estimate() -> None:
    estimate = QueueEstimate(connect("redis://127.0.0.1:1/0", retries=0), model="m")
    assert [estimate.retry_after_seconds(waiting) for waiting in (0, 30, 1000)] == [WORKER_START_SECONDS, 30, 120]
    assert estimate.start_times([job("m")], [QueuePosition(0, 0.0)]) == [None]


def test_a_burst_of_questions_reads_once(redis_client: RedisClient, redis_url: str) -> None:
    estimate = QueueEstimate(redis_client, model="m")
    serve(redis_client, 2)
    measure(redis_client, 1.0)
    all_ready = threading.Barrier(16)
    answers: list[int] = []

    def ask() -> None:
        all_ready.wait()
        answers.extend(estimate.retry_after_seconds(waiting) for waiting in (20, 40))

    with redis.Redis.from_url(redis_url) as raw:
        raw.config_resetstat()
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(10))
        assert sorted(answers) == [10] * 16 + [20] * 16
        assert raw.info("commandstats")["cmdstat_smembers"]["calls"] == 1


def test_a_reading_is_not_used_for_long(redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_estimate, "FRESH_SECONDS", 0.2)
    estimate = QueueEstimate(redis_client, model="m")
    serve(redis_client, 1)
    assert estimate.retry_after_seconds(20) == 20
    serve(redis_client, 4)
    assert estimate.retry_after_seconds(20) == 20
    threading.Event().wait(0.25)
    assert estimate.retry_after_seconds(20) == 5


@pytest.mark.parametrize("path", ["/generate", "/agenerate", "/agenerate?stream", "/embeddings"])
def test_a_full_queue_answers_when_to_try_again(
    make_app: MakeApp, config: Config, worker: ScriptedWorker, path: str
) -> None:
    worker.stop()
    measure(worker.redis, 8.0, model=MODEL)
    client = make_app(replace(config, jobs=replace(config.jobs, max_queued=5))).test_client()
    for _ in range(5):
        assert client.post("/agenerate", json={"prompt": "x"}).status_code == 202
    body = {"text": "x"} if path == "/embeddings" else {"prompt": "x", "stream": path.endswith("stream")}
    response = client.post(path, json=body)
    assert (response.status_code, response.get_json()["code"]) == (503, "queue_full")
    assert "5 jobs wait already" in response.get_json()["detail"]
    assert response.headers["Retry-After"] == "10", "5 jobs of 8 s, in 4 slots"


def test_without_a_worker_the_jobs_that_still_wait_count(
    make_app: MakeApp, config: Config, worker: ScriptedWorker
) -> None:
    worker.stop()
    measure(worker.redis, 8.0, model=MODEL)
    client = make_app(config).test_client()
    for _ in range(3):
        assert client.post("/agenerate", json={"prompt": "x"}).status_code == 202
    worker.redis.delete(keys.alive(MODEL), keys.worker(worker.name))
    unaware = make_app(config).test_client()  # has not read the list of workers
    response = unaware.post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.get_json()["code"]) == (503, "no_worker")
    assert response.headers["Retry-After"] == "24"


def test_a_refusal_stays_a_refusal_when_redis_goes_away_meanwhile(
    make_app: MakeApp, config: Config, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(client: RedisClient) -> list[WorkerInfo]:
        raise redis.ConnectionError("127.0.0.1 is gone")

    monkeypatch.setattr(queue_estimate, "read_workers", gone)
    response = make_app(config).test_client().post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.get_json()["code"]) == (503, "no_worker")
    assert response.headers["Retry-After"] == str(WORKER_START_SECONDS)


def test_the_time_of_jobs_is_measured_as_they_end(client: FlaskClient, worker: ScriptedWorker) -> None:
    def takes_a_while(turn: Turn) -> None:
        threading.Event().wait(0.2)
        turn.succeed()

    worker.play = takes_a_while
    client.post("/generate", json={"prompt": "x"})
    measured = worker.redis.hget(keys.shares(MODEL), "seconds")
    assert measured is not None and 0.2 <= float(measured) < scaled(2)
