"""The background threads of an API process."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.api.scripted_worker import Turn, working
from tests.lost_worker import end_lease
from tests.stack import Stack
from tests.valkey import Valkey, running_valkey
from tests.waiting import scaled, until

MODEL = "wsgi"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def api(tmp_path: Path, own_valkey: Valkey) -> Iterator[Stack]:
    stack = Stack(tmp_path, own_valkey.url, {"model_name": MODEL, "server": {"processes": 1, "threads": 16}})
    stack.start_api()
    try:
        stack.wait_alive()
        yield stack
    finally:
        stack.stop()


def test_a_job_whose_worker_died_is_taken_from_it_by_any_api_process(api: Stack) -> None:
    def play(turn: Turn) -> None:
        if turn.claim.attempt > 1:  # the first worker dies here
            turn.delta("saved")
            turn.succeed()

    with working(api.redis_url, MODEL) as worker, api.client() as client:
        worker.play = play
        job = client.post("/agenerate", json={"prompt": "p"}).json()
        until(lambda: worker.turns)
        end_lease(api.redis_url, job["id"], model=MODEL)
        job = client.get(f"{job['urls']['self']}?wait=10").json()
    assert (job["status"], job["output"]["text"], job["attempt"]) == ("succeeded", "saved", 2)


def test_a_process_whose_redis_is_silent_logs_it_once_and_stops_as_fast_as_ever(api: Stack, own_valkey: Valkey) -> None:
    with working(api.redis_url, MODEL), api.client() as client:
        assert client.post("/generate", json={"prompt": "p"}).status_code == 200, "all threads run"
    assert own_valkey.process is not None
    own_valkey.process.send_signal(signal.SIGSTOP)
    until(lambda: "Redis does not answer" in api.log("api"))
    assert [httpx.get(f"{api.url}/jobs", timeout=scaled(1)).status_code for _ in range(3)] == [503] * 3
    process = api.processes["api"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(scaled(5)) == 0
    _, *lines = api.lines("api")
    texts = [line.partition(" WARNING app.api.redis_health: ")[2] for line in lines]
    assert texts == ["Redis does not answer (TimeoutError): requests get 503 until it does"]
    own_valkey.process.send_signal(signal.SIGCONT)
