"""What a worker in this process counts and logs, and its metrics on a port."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.config.settings import Config, JobsConfig, WorkerConfig
from app.jobs.events import Delta
from app.jobs.job import JobRequest, Kind
from app.jobs.reaper import Reaper
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.engines.instant import Instant
from tests.lost_worker import end_lease
from tests.principals import ME
from tests.stack import free_port
from tests.waiting import until
from workers import metrics
from workers.batching.runner import BatchRunner
from workers.engines.runner import Report
from workers.engines.runner_counts import Distribution
from workers.jobs.running_jobs import RunningJob
from workers.jobs.worker_figures import WorkerFigures
from workers.worker import Worker

SECRET = "what nobody may read"
CONFIG = Config(model_name="m", jobs=JobsConfig(ttl=60), worker=WorkerConfig(slots=2))


@pytest.fixture
def worker(redis_client: RedisClient, store: JobStore) -> Iterator[Worker]:
    worker = Worker(CONFIG, redis_client, store, "host-1-a")
    worker.serve(BatchRunner(Instant(CONFIG, lambda *_: None), CONFIG.worker, worker))
    yield worker
    worker.close()


def run(worker: Worker, store: JobStore, tokens: int) -> str:
    job = store.admit(JobRequest(kind=Kind.GENERATE, prompt=SECRET, params={"max_tokens": tokens}), ME)
    worker.claim_next()
    until(lambda: store.read(job.id).status.is_final and not worker.active_jobs)
    return job.id


def shown(figures: WorkerFigures) -> dict[str, float]:
    """Return the values by name, those of buckets with their bound, as Prometheus reads them from a worker's port."""
    port = free_port()
    metrics.serve(lambda: figures, "127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {sample.name + sample.labels.get("le", ""): sample.value for family in families for sample in family.samples}


def test_a_worker_counts_its_claims_steps_and_prompts(worker: Worker, store: JobStore) -> None:
    run(worker, store, 3)
    run(worker, store, 1)
    read = shown(worker.figures)
    assert (read["llm_api_worker_claims_total"], read["llm_api_worker_takeovers_total"]) == (2, 0)
    assert (read["llm_api_worker_slots"], read["llm_api_worker_running"]) == (2, 0)
    assert (read["llm_api_step_seconds_count"], read["llm_api_step_rows_sum"]) == (4, 4)
    assert read["llm_api_step_rows_bucket1"] == 4
    assert (read["llm_api_prefix_cache_queries_total"], read["llm_api_prefix_cache_hits_total"]) == (2, 0)
    assert read["llm_api_redis_round_trip_seconds_count"] >= 2
    assert read["process_resident_memory_bytes"] > 0


def test_a_job_taken_over_in_quarantine_is_counted_and_so_are_the_writes_of_the_worker_that_lost_it(
    worker: Worker, store: JobStore, redis_url: str, redis_client: RedisClient
) -> None:
    job = store.admit(JobRequest(kind=Kind.GENERATE, prompt=SECRET), ME)
    late = store.claim("host-2-b")
    assert late is not None
    end_lease(redis_url, job.id, model="m")
    Reaper(redis_client, model="m", ttl_seconds=60, max_attempts=3).reap()
    worker.claim_next()
    until(lambda: store.read(job.id).status.is_final and not worker.active_jobs)
    figures = worker.figures
    assert (figures.claims, figures.takeovers, figures.trials, figures.fenced_writes) == (1, 1, 1, 0)
    lost = RunningJob(late)
    worker._jobs.add(lost)
    worker.report([Report(lost, Delta("late", (1,)), lost.canceled_outcome())])
    until(lambda: worker.figures.fenced_writes == 1)


def test_the_share_of_the_cache_is_that_of_all_slots(worker: Worker) -> None:
    full = replace(worker.figures, info=replace(worker.info, slots=4, context_tokens=100, used_cells=100))
    assert shown(full)["llm_api_kv_cache_usage_perc"] == 0.25


def test_a_port_that_is_taken_is_logged_and_stops_nothing(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics.serve(lambda: worker.figures, "127.0.0.1", taken.getsockname()[1])
    (line,) = [record.getMessage() for record in caplog.records if record.name == "workers.metrics"]
    assert "worker.metrics_port" in line


def test_the_end_of_a_job_has_one_line_with_its_tokens_and_times_and_none_of_its_text(
    worker: Worker, store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workers")
    job_id = run(worker, store, 3)
    (record,) = [record for record in caplog.records if record.getMessage() == "job succeeded"]
    fields = dict(record.fields)  # type: ignore[attr-defined]
    assert 0 <= fields.pop("queue_seconds") <= fields.pop("first_token_seconds")
    assert fields.pop("tokens_per_second") > 0
    assert fields == {
        "job": job_id,
        "attempt": 1,
        "prompt_tokens": 1,
        "cached_tokens": 0,
        "completion_tokens": 3,
        "source": "computed",
        "worker": "host-1-a",
    }
    assert SECRET not in caplog.text


def test_values_above_all_bounds_have_a_bucket_of_their_own() -> None:
    distribution = Distribution((1, 2))
    for value in (1, 1.5, 2, 3):
        distribution.add(value)
    assert (distribution.counts, distribution.total) == ([1, 2, 1], 7.5)
