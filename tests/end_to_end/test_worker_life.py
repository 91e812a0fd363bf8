"""Slots, stops and outages of Redis, with the worker as a process."""

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack import Stack, engine_config, running_stack
from tests.valkey import Valkey, running_valkey
from tests.waiting import scaled

TWO_SLOTS = engine_config("slow:Slow", worker={"slots": 2}, model_params={"step_seconds": 0.02})


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def slow(tmp_path: Path, own_valkey: Valkey) -> Iterator[Stack]:
    with running_stack(tmp_path, own_valkey.url, TWO_SLOTS) as stack:
        yield stack


def submit(http: httpx.Client, tokens: int) -> str:
    job_id: str = http.post("/agenerate", json={"prompt": "p", "params": {"max_tokens": tokens}}).json()["id"]
    return job_id


def wait(http: httpx.Client, job_id: str) -> Any:
    return http.get(f"/jobs/{job_id}", params={"wait": 30}).json()


def until_status(http: httpx.Client, job_id: str, status: str) -> None:
    deadline = time.monotonic() + scaled(10)
    while http.get(f"/jobs/{job_id}").json()["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_ready(stack: Stack, name: str) -> None:
    deadline = time.monotonic() + scaled(20)
    while "ready:" not in stack.log(name):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_takes_no_more_jobs_than_it_has_slots(slow: Stack) -> None:
    with slow.client() as http:
        jobs = [submit(http, 40) for _ in range(5)]
        until_status(http, jobs[1], "processing")
        time.sleep(0.2)
        statuses = [http.get(f"/jobs/{job}").json()["status"] for job in jobs]
        assert statuses == ["processing", "processing", "queued", "queued", "queued"]
        assert {wait(http, job)["status"] for job in jobs} == {"succeeded"}


def test_a_free_slot_is_filled_at_once(slow: Stack) -> None:
    with slow.client() as http:
        jobs = [submit(http, 2) for _ in range(20)]
        done = [wait(http, job) for job in jobs]
    span = max(_seconds(job["completed_at"]) for job in done) - min(_seconds(job["started_at"]) for job in done)
    assert span < scaled(5), "20 jobs of 0.04 s on 2 slots; Celery's own timers turn its loop every few seconds"


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


def test_a_worker_that_receives_sigterm_finishes_its_jobs_and_takes_no_new_ones(slow: Stack) -> None:
    with slow.client() as http:
        running = submit(http, 60)
        until_status(http, running, "processing")
        slow.processes["worker"].send_signal(signal.SIGTERM)
        time.sleep(0.3)
        waiting = submit(http, 2)
        assert slow.processes.pop("worker").wait(scaled(20)) == 0
        assert (wait(http, running)["status"], wait(http, running)["usage"]["completion_tokens"]) == ("succeeded", 60)
        assert http.get(f"/jobs/{waiting}").json()["status"] == "queued"
        slow.start_worker()
        assert wait(http, waiting)["status"] == "succeeded"


def test_a_redis_that_is_killed_and_comes_back_costs_no_accepted_job(slow: Stack, own_valkey: Valkey) -> None:
    with slow.client() as http:
        jobs = [submit(http, 50) for _ in range(4)]
        until_status(http, jobs[1], "processing")
        time.sleep(1.2)  # the append-only file is flushed every second
        own_valkey.kill()
        refused = http.post("/generate", json={"prompt": "p"})
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        own_valkey.start()
        slow.wait_ready()
        assert {wait(http, job)["status"] for job in jobs} == {"succeeded"}
        assert http.post("/generate", json={"prompt": "p", "params": {"max_tokens": 1}}).status_code == 200
    assert all(process.poll() is None for process in slow.processes.values())


def test_workers_restarted_one_after_the_other_under_load_lose_no_job(slow: Stack) -> None:
    with slow.client() as http:
        jobs = []
        for generation in range(3):
            jobs += [submit(http, 3) for _ in range(15)]
            slow.start_worker(f"worker-{generation}")
            until_ready(slow, f"worker-{generation}")
            leaving = "worker" if generation == 0 else f"worker-{generation - 1}"
            slow.processes[leaving].send_signal(signal.SIGTERM)
            jobs += [submit(http, 3) for _ in range(15)]
            assert slow.processes.pop(leaving).wait(scaled(20)) == 0
        assert {wait(http, job)["status"] for job in jobs} == {"succeeded"}
