"""An API process that receives a stop signal while clients wait: gunicorn, real sockets, and the jobs afterwards."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.app.api.scripted_worker import ScriptedWorker, Turn, working
from tests.app.api.sse_reading import parse
from tests.stack import Stack, free_port
from tests.waiting import scaled, until

MODEL = "farewell"
SHORT_GRACE = ("--graceful-timeout", "5")  # one second of it is reserved for answers


@pytest.fixture
def stack(tmp_path: Path, redis_url: str) -> Iterator[Stack]:
    stack = Stack(tmp_path, redis_url, {"model_name": MODEL, "server": {"processes": 1, "threads": 64}})
    yield stack
    stack.stop()


@dataclass
class Cues:
    """Events that let jobs end: `soon` those with the prompt "soon", `late` all others."""

    soon: threading.Event = field(default_factory=threading.Event)
    late: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def cues() -> Cues:
    return Cues()


@pytest.fixture
def worker(redis_url: str, cues: Cues) -> Iterator[ScriptedWorker]:
    """A worker that publishes "one " at once, except for the prompt "silent", and "two" when the job may end."""

    def play(turn: Turn) -> None:
        prompt = turn.request.prompt or turn.request.texts[0]
        if prompt != "silent":
            turn.delta("one ")
        assert (cues.soon if prompt == "soon" else cues.late).wait(scaled(30))
        turn.delta("two")
        turn.succeed(embeddings=[[1.0]] if turn.request.texts else None)

    with working(redis_url, MODEL) as worker:
        worker.play = play
        yield worker
        cues.soon.set()
        cues.late.set()


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def start(stack: Stack, *options: str) -> None:
    stack.start_api("api", None, *options)
    stack.wait_alive()


def open_connections(stack: Stack) -> int:
    """Return how many connections the API's one process has accepted."""
    (process,) = psutil.Process(stack.processes["api"].pid).children()
    return sum(
        c.status == psutil.CONN_ESTABLISHED and c.laddr.port == stack.port for c in process.net_connections("tcp")
    )


def refuses(stack: Stack) -> bool:
    """Return whether a new connection is refused, or reset because it was not accepted in time."""
    try:
        return httpx.get(f"{stack.url}/healthz", timeout=scaled(2)).status_code != 200
    except (httpx.ConnectError, httpx.ReadError):
        return True


def test_near_the_end_of_the_grace_waiting_clients_get_the_location_of_their_job_which_continues(
    stack: Stack, worker: ScriptedWorker, cues: Cues, clients: ThreadPoolExecutor
) -> None:
    start(stack)
    stack.start_api("other", other_port := free_port())
    stack.wait_alive("other", other_port)
    job = httpx.post(f"{stack.url}/agenerate", json={"prompt": "followed"}, timeout=scaled(5)).json()
    followed = job["urls"]["self"]

    def ask(method: str, path: str, **body: Any) -> "Future[tuple[httpx.Response, float]]":
        def run() -> tuple[httpx.Response, float]:
            answer = httpx.request(method, f"{stack.url}{path}", json=body or None, timeout=scaled(30))
            return answer, time.monotonic()

        return clients.submit(run)

    cut = [
        ask("POST", "/generate", prompt="long"),
        ask("POST", "/generate", prompt="long", on_disconnect="continue"),
        ask("POST", "/embeddings", text="long"),
        ask("POST", "/agenerate", prompt="silent", stream=True),
    ]
    streams = [ask("POST", "/agenerate", prompt="spoken", stream=True), ask("GET", f"{followed}/events")]
    read, soon = ask("GET", f"{followed}?wait=60"), ask("POST", "/generate", prompt="soon")
    until(lambda: len(worker.turns) == 7 and open_connections(stack) == 8)
    signaled_at = time.monotonic()
    stack.processes["api"].send_signal(signal.SIGTERM)
    until(lambda: refuses(stack), 3)
    cues.soon.set()
    assert soon.result()[0].json() == "one two", "what ends within the grace is answered"
    answers = [future.result() for future in (*cut, *streams, read)]
    assert all(5 < at - signaled_at < 5 + scaled(5) for _, at in answers)
    assert stack.processes["api"].wait(scaled(10.5)) == 0
    assert len(stack.lines("api")) == 1, stack.log("api")
    cues.late.set()
    with httpx.Client(base_url=f"http://127.0.0.1:{other_port}", timeout=scaled(20)) as other:
        for answer, _ in answers[:4]:
            assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
            assert int(answer.headers["Retry-After"]) > 0
            path = answer.headers["Location"].removesuffix("/events")
            assert answer.headers["Location"] in answer.json()["detail"]
            assert "the job continues" in answer.json()["detail"]
            assert other.get(f"{path}?wait=10").json()["status"] == "succeeded"
        for answer, _ in answers[4:6]:
            *before, error = parse(answer.text)
            assert (answer.status_code, error.name, error.json["code"]) == (200, "error", "shutting_down")
            assert answer.text.endswith("\n\n") and "Last-Event-ID" in error.json["detail"]
            rest = other.get(error.json["location"], headers={"Last-Event-ID": str(before[-1].id)})
            assert [event.name for event in parse(rest.text)] == ["delta", "end"]
            assert parse(rest.text)[0].json == {"text": "two"}
        assert (answers[6][0].status_code, answers[6][0].json()["status"]) == (200, "processing")
        assert other.get(f"{followed}?wait=10").json()["status"] == "succeeded"
        assert {job["status"] for job in other.get("/jobs").json()["data"]} == {"succeeded"}


def test_a_quick_exit_answers_waiting_clients_too(
    stack: Stack, worker: ScriptedWorker, clients: ThreadPoolExecutor
) -> None:
    start(stack)
    waiting = clients.submit(httpx.post, f"{stack.url}/generate", json={"prompt": "long"}, timeout=scaled(20))
    until(lambda: worker.turns)
    stack.processes["api"].send_signal(signal.SIGINT)
    assert stack.processes["api"].wait(scaled(9)) == 0
    assert waiting.result().json()["code"] == "shutting_down"


def test_after_the_death_of_its_master_a_process_answers_its_clients_and_ends(
    stack: Stack, worker: ScriptedWorker, clients: ThreadPoolExecutor
) -> None:
    start(stack, *SHORT_GRACE)
    master = stack.processes.pop("api")
    (child,) = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
    waiting = clients.submit(httpx.post, f"{stack.url}/generate", json={"prompt": "long"}, timeout=scaled(20))
    until(lambda: worker.turns)
    master.kill()
    master.wait()
    assert waiting.result().json()["code"] == "shutting_down"
    until(lambda: _has_ended(child))


def _has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_reload_answers_new_requests_all_the_while(
    stack: Stack, worker: ScriptedWorker, cues: Cues, clients: ThreadPoolExecutor
) -> None:
    start(stack, *SHORT_GRACE)
    waiting = clients.submit(httpx.post, f"{stack.url}/generate", json={"prompt": "long"}, timeout=scaled(20))
    until(lambda: worker.turns)
    cues.soon.set()
    stack.processes["api"].send_signal(signal.SIGHUP)
    while not waiting.done():
        assert httpx.get(f"{stack.url}/healthz", timeout=scaled(5)).status_code == 200
    assert waiting.result().json()["code"] == "shutting_down"
    assert httpx.post(f"{stack.url}/generate", json={"prompt": "soon"}, timeout=scaled(5)).json() == "one two"


def test_live_views_do_not_hold_up_a_stop(stack: Stack) -> None:
    start(stack)
    with stack.client() as client, client.stream("GET", "/live/queue") as response:
        chunks = response.iter_raw()
        next(chunks)
        started = time.monotonic()
        stack.processes["api"].terminate()
        assert all(chunk for chunk in chunks), "the stream ends in order"
    stack.processes["api"].wait(scaled(10))
    assert time.monotonic() - started < scaled(4), "the grace is for jobs"
