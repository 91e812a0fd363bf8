"""The metrics agree with what 1,000 jobs did: two API processes, two workers, and kills in between."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from app.jobs import keys
from app.jobs.job import Job
from app.jobs.record import RECORD_FIELDS, job_from_record
from tests.faults.service import Service, running_service
from tests.lost_worker import end_lease
from tests.stack import engine_config
from tests.waiting import until

JOBS, CLIENTS = 1000, 8


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = engine_config(
        "slow:Slow",
        worker={"slots": 16},
        model_params={"step_seconds": 0.005},
        server={"processes": 2},
        jobs={"max_queued": JOBS},
        log={"level": "warning"},
    )
    with running_service(tmp_path_factory.mktemp("metrics"), workers=2, config=config) as running:
        yield running


def send(service: Service, numbers: range) -> None:
    """Send jobs of 1 to 12 tokens from several clients. One in 100 has too little time, one in 50 is canceled."""

    def client(first: int) -> None:
        with httpx.Client(base_url=service.urls[0], timeout=60) as http:
            for number in numbers[first::CLIENTS]:
                body = {"prompt": "x", "params": {"max_tokens": 1 + number % 12}}
                hurried = {"params": {"max_tokens": 500}, "timeout": 1} if number % 100 == 7 else {}
                sent = http.post("/agenerate", json=body | hurried)
                assert sent.status_code == 202, sent.text
                if number % 50 == 0:
                    http.post(f"/jobs/{sent.json()['id']}/cancel").raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))


def shown(service: Service) -> Counter[tuple[str, ...]]:
    text = httpx.get(f"{service.urls[0]}/metrics", timeout=60).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return Counter({(sample.name, *sample.labels.values()): sample.value for sample in samples})  # type: ignore[misc]


def records(raw: "redis.Redis", ids: list[str]) -> list[Job]:
    jobs = [job_from_record(raw.hmget(keys.job(job_id), RECORD_FIELDS)) for job_id in ids]  # type: ignore[arg-type]
    return [job for job in jobs if job is not None]


def test_the_metrics_agree_with_what_a_thousand_jobs_did_through_kills(service: Service) -> None:
    model, master = service.model, psutil.Process(service.stack.processes["api-1"].pid)
    with service.redis() as raw:
        send(service, range(JOBS // 2))
        until(lambda: service.running_jobs(service.info("worker-1").id), what="worker-1 to run jobs")
        lost = service.info("worker-1").id
        worker = service.stack.processes.pop("worker-1")
        worker.kill()
        worker.wait()
        hostages = [job.job_id for job in service.running_jobs(lost)]
        for job_id in hostages:
            end_lease(service.valkey.url, job_id, model=model)
        os.kill(master.children()[0].pid, signal.SIGKILL)
        until(lambda: len(master.children()) == 2, what="a new API process")
        until(lambda: httpx.get(f"{service.urls[0]}/readyz", timeout=60).status_code == 200, what="the service")
        send(service, range(JOBS // 2, JOBS))
        until(lambda: not raw.zcard(keys.waiting(model)) and not raw.zcard(keys.running(model)), 60, "all jobs to end")
        ids = service.job_ids()
        jobs, attempts = records(raw, ids), sum(int(raw.hget(keys.job(one), "attempt") or 0) for one in ids)
        published = {one: int(raw.hget(keys.job(one), "published") or 0) for one in ids}
    assert len(jobs) == JOBS
    assert hostages and attempts > sum(job.attempt > 0 for job in jobs), "some jobs were taken over"
    metrics = shown(service)

    def total(name: str, label: str = "") -> float:
        return sum(value for key, value in metrics.items() if key[0] == name and (not label or label in key))

    statuses = Counter(job.status.value for job in jobs)
    assert set(statuses) == {"succeeded", "failed", "canceled"}
    assert {status: total("llm_api_jobs_total", status) for status in statuses} == statuses
    assert total("llm_api_jobs_total") == JOBS
    assert total("llm_api_job_errors_total") == sum(job.error is not None for job in jobs)
    used = [job.usage for job in jobs if job.usage is not None]
    assert total("llm_api_prompt_tokens_total") == sum(usage.prompt_tokens for usage in used)
    assert total("llm_api_generation_tokens_total") == sum(usage.completion_tokens for usage in used) + sum(
        published[job.id] for job in jobs if job.usage is None
    )
    assert total("llm_api_job_attempts_total") == attempts
    measured = [job.metrics for job in jobs if job.metrics is not None]
    first = [one.time_to_first_token_seconds for one in measured if one.time_to_first_token_seconds is not None]
    assert total("llm_api_time_to_first_token_seconds_count") == len(first)
    assert total("llm_api_time_to_first_token_seconds_sum") == pytest.approx(sum(first), abs=JOBS * 1e-6)
    assert total("llm_api_request_queue_time_seconds_count") == len(measured)
    assert total("llm_api_e2e_request_latency_seconds_count") == statuses["succeeded"] + statuses["failed"]
    assert total("llm_api_http_request_duration_seconds_count", "/agenerate") == JOBS
    assert total("llm_api_num_requests_waiting") == total("llm_api_num_requests_running") == 0
