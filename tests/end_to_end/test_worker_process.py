"""The worker as a process: engines that fail at each possible place, models that cannot be loaded, priorities."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack import SMOLLM2, SMOLLM2_FILE, Stack, engine_config, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled


def generate(stack: Stack, prompt: str) -> httpx.Response:
    return httpx.post(f"{stack.url}/generate", json={"prompt": prompt}, timeout=scaled(20))


@pytest.mark.parametrize("place", ["prepare", "row", "step"])
def test_an_engine_that_fails_costs_that_job_and_nothing_else(faulty: Stack, place: str) -> None:
    answer = generate(faulty, place)
    assert (answer.status_code, answer.json()["code"]) == (500, "engine_error")
    assert "defect" not in answer.text, "the engine's own words stay in the log"
    assert f"a defect {'while preparing' if place == 'prepare' else f'in a {place}'}" in faulty.log("worker")
    assert generate(faulty, "fine").json() == " done"


def failing_start(folder: Path, config: dict[str, Any]) -> tuple[str, int, str]:
    """Return the worker's log, its exit code and the answer of /readyz, for a config that no worker can serve."""
    with running_valkey(folder / "valkey") as server:
        stack = Stack(folder, server.url, config)
        try:
            code = stack.start_worker().wait(scaled(30))
            stack.start_api()
            deadline = time.monotonic() + scaled(20)
            while True:
                try:
                    ready = httpx.get(f"{stack.url}/readyz", timeout=scaled(5))
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline, stack.log("api")
                    time.sleep(0.1)
            assert ready.status_code == 503
            if code == os.EX_CONFIG:  # seconds after its last announcement
                assert generate(stack, "x").status_code == 503
            return stack.log("worker"), code, ready.json()["detail"]
        finally:
            stack.stop("api")


def smollm2_with(path: Path) -> dict[str, Any]:
    return {**SMOLLM2, "setup_params": {"path": str(path)}, "model_name": "broken"}


@pytest.mark.parametrize("fault", ["missing", "truncated", "not a GGUF"])
def test_a_model_file_that_cannot_be_loaded_is_reported_in_one_line_and_not_tried_again(
    tmp_path: Path, fault: str
) -> None:
    model = tmp_path / "model.gguf"
    if fault == "truncated":
        with SMOLLM2_FILE.open("rb") as source:
            model.write_bytes(source.read(5_000_000))
    elif fault == "not a GGUF":
        model.write_bytes(b"PK\x03\x04 this is a zip file" * 100)
    log, code, detail = failing_start(tmp_path, smollm2_with(model))
    assert code == 78
    (line,) = [line for line in log.splitlines() if line.startswith("worker:")]
    assert "model.gguf" in line
    assert "Traceback" not in log
    assert line.removeprefix("worker: ") in detail


def test_readyz_shows_why_an_engine_cannot_load(tmp_path: Path) -> None:
    log, code, detail = failing_start(tmp_path, engine_config("faulty:NeverLoads"))
    assert (code, log) == (78, "worker: the model file is not there; put it there\n")
    assert "the model file is not there" in detail


@pytest.mark.parametrize(("gpus", "seen"), [("auto", "all"), ([0, 1], "0,1")])
def test_a_worker_sees_the_gpus_that_the_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: Any, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with running_valkey(tmp_path / "valkey") as server:
        stack = Stack(tmp_path, server.url, engine_config("faulty:ShowsItsGpus", worker={"gpus": gpus}))
        assert stack.start_worker().wait(scaled(30)) == 78
    assert stack.log("worker") == f"worker: GPUs: {seen}\n"


def test_a_defect_while_loading_is_worth_a_restart(tmp_path: Path) -> None:
    log, code, detail = failing_start(tmp_path, engine_config("faulty:CrashesWhileLoading"))
    assert code == 1
    assert "RuntimeError: a defect of the engine" in log
    assert "RuntimeError" in detail and "defect" not in detail


def test_a_model_that_ends_its_worker_is_tried_three_times(tmp_path: Path) -> None:
    with running_valkey(tmp_path / "valkey") as server:
        stack = Stack(tmp_path, server.url, engine_config("faulty:DiesWhileLoading"))
        codes = [stack.start_worker().wait(scaled(30)) for _ in range(4)]
    assert codes == [-signal.SIGABRT] * 3 + [78]
    assert stack.log("worker").count("\n") == 1, "the line of the one that gave up"
    assert "worker: 3 workers have died while loading the model" in stack.log("worker")


def test_a_worker_that_stands_still_is_not_ready_and_one_that_waits_for_jobs_is(tmp_path: Path) -> None:
    config = engine_config("faulty:StandsStill", worker={"stall_seconds": 5})
    with running_valkey(tmp_path / "valkey") as server, running_stack(tmp_path, server.url, config) as stack:
        time.sleep(11)  # two announcements after the first stall there could be
        assert httpx.get(f"{stack.url}/readyz").status_code == 200
        with stack.client() as http:
            job = http.post("/agenerate", json={"prompt": "stop"}).json()["id"]
            deadline = time.monotonic() + scaled(30)
            while (ready := http.get("/readyz")).status_code == 200 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert "stalled: the model has stood still" in ready.json()["detail"]
            http.delete(f"/jobs/{job}")


def test_jobs_of_high_priority_start_first(tmp_path: Path) -> None:
    config = engine_config("slow:Slow", worker={"slots": 1}, model_params={"step_seconds": 0.02})
    with running_valkey(tmp_path / "valkey") as server, running_stack(tmp_path, server.url, config) as stack:
        jobs = {}
        with stack.client() as http:
            http.post("/agenerate", json={"prompt": "first, so that the others wait", "params": {"max_tokens": 40}})
            for priority in ("low", "normal", "high"):
                body = {"prompt": priority, "priority": priority, "params": {"max_tokens": 2}}
                jobs[priority] = http.post("/agenerate", json=body).json()["id"]
            positions = {name: http.get(f"/jobs/{job}").json()["queue_position"] for name, job in jobs.items()}
            done = {name: http.get(f"/jobs/{job}", params={"wait": 30}).json() for name, job in jobs.items()}
    assert positions == {"high": 1, "normal": 2, "low": 3}
    assert sorted(jobs, key=lambda name: done[name]["started_at"]) == ["high", "normal", "low"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_all_threads_that_compute_the_model_are_nice_and_no_others_are(tmp_path: Path) -> None:
    config = {**SMOLLM2, "model_params": {"n_ctx": 512, "n_threads": 2, "n_gpu_layers": 0}, "worker": {"nice": 19}}
    with running_valkey(tmp_path / "valkey") as server, running_stack(tmp_path / "stack", server.url, config) as stack:
        body = {"prompt": "Count", "params": {"max_tokens": 2}}  # beside busy processes a step takes them seconds
        assert httpx.post(f"{stack.url}/generate", json=body, timeout=scaled(60)).status_code == 200
        worker = stack.processes["worker"].pid
        threads = [int(entry.name) for entry in Path(f"/proc/{worker}/task").iterdir()]
        nices = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert list(nices.values()).count(19) == 3, "two of the batch loop, and the embedding loop"
    assert nices[worker] < 19, "the thread of the consumer"
