"""Requests that are repeated under their Idempotency-Key, over HTTP and a real Valkey."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.request_context import KEY_HEADER
from app.config.settings import Config
from app.jobs import keys
from app.jobs.job import Status
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import parse, received
from tests.waiting import scaled

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def send(client: FlaskClient, path: str, key: str = KEY, **body: Any) -> TestResponse:
    """Post a request under a key; the path `/agenerate?stream` requests a stream."""
    what = {"text": "Say hello"} if path == "/embeddings" else {"prompt": "Say hello"}
    stream = {"stream": True} if path.endswith("?stream") else {}
    return client.post(path, json={**what, **stream, **body}, headers={KEY_HEADER: key})


def another_client(client: FlaskClient) -> FlaskClient:
    return client.application.test_client()


def text_of(response: TestResponse) -> str:
    return "".join(event.data for event in received(response))


def job_of(client: FlaskClient, response: TestResponse, *, wait: int = 10) -> Any:
    return client.get(f"{response.headers['Location']}?wait={wait}").get_json()


@pytest.fixture
def running(client: FlaskClient, worker: ScriptedWorker) -> Iterator[threading.Event]:
    """A job under `KEY` that has published "one". When the event is set, it publishes " two" and succeeds."""
    has_published, resume = threading.Event(), threading.Event()
    worker.play = play_of("one", lambda turn: has_published.set(), resume, " two", Turn.succeed)
    assert send(client, "/agenerate").status_code == 202
    assert has_published.wait(scaled(5))
    yield resume
    resume.set()


EVERY_PATH = ["/generate", "/agenerate", "/agenerate?stream", "/embeddings"]


@pytest.mark.parametrize("path", EVERY_PATH)
def test_the_same_request_again_is_the_same_job(client: FlaskClient, worker: ScriptedWorker, path: str) -> None:
    worker.play = play_of("Hello", lambda turn: turn.succeed(embeddings=[[0.5, 0.5]]))
    first = send(client, path)
    job_of(client, first)
    second = send(client, path)
    assert first.headers["Location"] == second.headers["Location"]
    assert first.status_code == second.status_code
    if path != "/agenerate":
        assert first.get_data() == second.get_data() != b""
    assert len(worker.turns) == len(client.get("/jobs").get_json()["data"]) == 1


@pytest.mark.parametrize("path", EVERY_PATH)
def test_without_a_key_every_request_makes_a_job(client: FlaskClient, worker: ScriptedWorker, path: str) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[0.5, 0.5]])
    body = {"prompt": "x", "text": "x"} if path != "/embeddings" else {"text": "x"}
    first, second = (client.post(path, json=body) for _ in range(2))
    assert first.headers["Location"] != second.headers["Location"]


@pytest.mark.parametrize("path", EVERY_PATH)
def test_another_request_under_the_same_key_is_a_conflict(
    client: FlaskClient, worker: ScriptedWorker, path: str
) -> None:
    made = client.post("/agenerate", json={"prompt": "another"}, headers={KEY_HEADER: KEY})
    response = send(client, path)
    problem = response.get_json()
    assert (response.status_code, problem["code"]) == (409, "conflict")
    assert "use a new key" in problem["detail"]
    assert "Location" not in response.headers
    job_of(client, made)
    assert [turn.request.prompt for turn in worker.turns] == ["another"]


@pytest.mark.parametrize("key", ["x", "x" * 255, f'"{KEY}"', "!~", "a,b"])
def test_visible_ascii_is_a_key(client: FlaskClient, worker: ScriptedWorker, key: str) -> None:
    assert [send(client, "/generate", key).get_json() for _ in range(2)] == ["Hello world"] * 2
    assert len(worker.turns) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\tb", "\x7f", "\x00"])
@pytest.mark.parametrize("path", EVERY_PATH)
def test_what_cannot_be_a_key_is_named(client: FlaskClient, worker: ScriptedWorker, path: str, key: str) -> None:
    response = send(client, path, key)
    assert (response.status_code, list(response.get_json()["errors"])) == (422, ["Idempotency-Key"])
    assert "Idempotency-Key: Must be 1 to 255 visible ASCII characters" in response.get_json()["detail"]
    assert worker.turns == [] == client.get("/jobs").get_json()["data"]


def test_generate_waits_for_the_job_that_runs(client: FlaskClient, running: threading.Event) -> None:
    threading.Timer(0.2, running.set).start()
    assert send(client, "/generate").get_json() == "one two"


def test_agenerate_answers_with_the_job_as_it_is(client: FlaskClient, running: threading.Event) -> None:
    first = send(client, "/agenerate")
    assert (first.status_code, first.get_json()["status"]) == (202, "processing")
    running.set()
    job_of(client, first)
    second = send(client, "/agenerate")
    assert (second.status_code, second.get_json()["output"]["text"]) == (202, "one two")


def test_a_stream_follows_the_job_that_runs_from_its_start(
    client: FlaskClient, worker: ScriptedWorker, running: threading.Event
) -> None:
    response = send(client, "/agenerate?stream")
    chunks = response.iter_encoded()
    assert [event.data for event in parse(next(chunks).decode())] == ["one"]
    assert worker.redis.hget(keys.job(worker.turns[0].claim.job_id), "followed") == "1"
    running.set()
    assert [event.data for event in parse(b"".join(chunks).decode())] == [" two"]


def test_a_stream_of_a_job_that_has_ended_carries_the_whole_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert send(client, "/generate").get_json() == "Hello world"
    assert text_of(send(client, "/agenerate?stream")) == "Hello world"


@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream", "/embeddings"])
def test_a_failure_stays_a_failure(client: FlaskClient, worker: ScriptedWorker, path: str) -> None:
    worker.play = lambda turn: turn.fail("prompt_too_long", "too long by 3", {"prompt": ["too long by 3"]})
    first, second = send(client, path), send(client, path)
    assert (first.status_code, first.get_json()) == (second.status_code, second.get_json())
    assert first.get_json()["code"] == "prompt_too_long"
    assert len(worker.turns) == 1


def test_a_wait_for_an_earlier_job_that_is_over_has_its_location(
    client: FlaskClient, running: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.pending_jobs.WAIT_GRACE_SECONDS", -19.9)  # of the 20 s that a job may run here
    response = send(client, "/generate")
    assert (response.status_code, response.get_json()["code"]) == (504, "wait_timeout")
    assert job_of(client, response, wait=0)["status"] == "processing"


def test_requests_that_come_at_once_make_one_job_and_all_have_its_outcome(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    paths = ["/generate", "/agenerate", "/agenerate?stream"] * 6
    all_ready = threading.Barrier(len(paths))
    answers: list[tuple[str, TestResponse]] = []

    def call(path: str) -> None:
        mine = another_client(client)
        all_ready.wait()
        answers.append((path, send(mine, path)))

    threads = [threading.Thread(target=call, args=[path], daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(20))
    assert len(answers) == len(paths)
    assert len({response.headers["Location"] for _, response in answers}) == 1
    for path, response in answers:
        if path == "/generate":
            assert (response.status_code, response.get_json()) == (200, "Hello world")
        elif path == "/agenerate":
            assert response.status_code == 202
        else:
            assert text_of(response) == "Hello world"
    assert len(worker.turns) == 1


Leave = Callable[..., None]


def leave_generate(client: FlaskClient, **body: Any) -> None:
    """Send `/generate`, and hang up as soon as it waits."""
    ours, theirs = socket.socketpair()
    waiters = client.application.extensions["llm_api"].jobs.waiters
    waiting = waiters._requests

    def hang_up() -> None:
        while waiters._requests == waiting:
            time.sleep(0.01)
        time.sleep(0.1)
        theirs.close()

    hanging_up = threading.Thread(target=hang_up, daemon=True)
    hanging_up.start()
    with ours:
        response = another_client(client).post(
            "/generate",
            json={"prompt": "Say hello", **body},
            headers={KEY_HEADER: KEY},
            environ_overrides={"gunicorn.socket": ours},
        )
    hanging_up.join(scaled(5))
    assert response.status_code == 499


def leave_stream(client: FlaskClient, **body: Any) -> None:
    """Start a stream, and hang up after its first piece."""
    response = send(another_client(client), "/agenerate?stream", **body)
    next(response.iter_encoded())
    response.close()


def is_to_be_canceled(worker: ScriptedWorker) -> bool:
    return worker.redis.hget(keys.job(worker.turns[0].claim.job_id), "cancel") == "1"


LEAVING = pytest.mark.parametrize("leave", [leave_generate, leave_stream])


@LEAVING
def test_a_client_that_sends_a_key_may_leave_and_come_back(
    client: FlaskClient, worker: ScriptedWorker, leave: Leave
) -> None:
    left = threading.Event()
    worker.play = play_of("one", left, " two", Turn.succeed)
    leave(client)
    assert not is_to_be_canceled(worker)
    left.set()
    assert send(client, "/generate").get_json() == "one two"
    assert len(worker.turns) == 1


@LEAVING
def test_a_client_that_sends_a_key_may_request_to_cancel_on_disconnect(
    client: FlaskClient, worker: ScriptedWorker, leave: Leave
) -> None:
    worker.play = play_of("one", Turn.wait_for_cancel)
    leave(client, on_disconnect="cancel")
    assert job_of(client, send(client, "/agenerate"))["status"] == Status.CANCELED


@LEAVING
def test_a_client_that_did_not_make_the_job_never_cancels_it_by_leaving(
    client: FlaskClient, worker: ScriptedWorker, running: threading.Event, leave: Leave
) -> None:
    leave(client, on_disconnect="cancel")
    leave(client)
    assert not is_to_be_canceled(worker)
    running.set()
    assert send(client, "/generate").get_json() == "one two"


@LEAVING
def test_a_client_that_leaves_an_earlier_job_frees_its_place_among_the_waiters(
    client: FlaskClient, running: threading.Event, leave: Leave
) -> None:
    waiters = client.application.extensions["llm_api"].jobs.waiters
    before = waiters._requests
    leave(client)
    assert waiters._requests == before


@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream"])
def test_waiting_for_an_earlier_job_takes_one_place_among_the_waiters(
    make_app: MakeApp, config: Config, worker: ScriptedWorker, path: str
) -> None:
    app = make_app(replace(config, server=replace(config.server, threads=1)))
    release = threading.Event()
    worker.play = play_of(release, "Hello world", Turn.succeed)
    assert send(app.test_client(), "/agenerate").status_code == 202
    threading.Timer(0.2, release.set).start()
    response = send(app.test_client(), path)
    assert "Hello world" in response.text


def test_a_job_that_is_deleted_is_forgotten_with_its_key(client: FlaskClient, worker: ScriptedWorker) -> None:
    first = send(client, "/generate")
    assert client.delete(first.headers["Location"]).status_code == 204
    second = send(client, "/generate")
    assert (second.status_code, second.get_json()) == (200, "Hello world")
    assert second.headers["Location"] != first.headers["Location"]
    client.delete(second.headers["Location"])
    assert send(client, "/generate", prompt="another").status_code == 200
    assert len(worker.turns) == 3


def test_a_job_that_is_only_canceled_keeps_its_key(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    first = send(client, "/agenerate")
    assert client.delete(first.headers["Location"]).status_code == 200
    again = send(client, "/generate")
    assert (again.status_code, again.get_json()["code"]) == (409, "job_canceled")
    assert again.headers["Location"] == first.headers["Location"]
    assert client.delete(first.headers["Location"]).status_code == 204
    assert send(client, "/agenerate").headers["Location"] != first.headers["Location"]


def test_a_key_is_free_again_when_the_time_of_its_job_is_over(client: FlaskClient, worker: ScriptedWorker) -> None:
    first = send(client, "/generate", ttl=1)
    deadline = time.monotonic() + scaled(5)
    while client.get(first.headers["Location"]).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert send(client, "/generate", prompt="another").status_code == 200


def test_clients_with_different_api_keys_have_separate_idempotency_keys(
    locked_app: Flask, worker: ScriptedWorker
) -> None:
    client = locked_app.test_client()
    answers = [
        client.post(
            "/generate",
            json={"prompt": f"of {api_key}"},
            headers={"Authorization": f"Bearer {api_key}", KEY_HEADER: KEY},
        )
        for api_key in ("first-key", "second-key")
    ]
    assert [response.status_code for response in answers] == [200, 200]
    assert answers[0].headers["Location"] != answers[1].headers["Location"]


@pytest.mark.parametrize("path", ["/generate", "/agenerate", "/embeddings"])
def test_the_header_is_documented(client: FlaskClient, path: str) -> None:
    document = client.get("/openapi.json").get_json()
    item = document["paths"][path]
    parameters = [*item.get("parameters", []), *item["post"].get("parameters", [])]
    (parameter,) = (one for one in parameters if one["name"] == KEY_HEADER)
    assert (parameter["in"], parameter.get("required", False)) == ("header", False)
    assert "`conflict`" in document["components"]["responses"]["Problem409"]["description"]
