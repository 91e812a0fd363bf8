import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api import event_stream
from app.config.settings import Config, GenerateConfig
from app.jobs.job import Status
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import parse, received
from tests.waiting import scaled


def stream(client: FlaskClient, *, accept: str = "text/event-stream", **body: Any) -> TestResponse:
    return client.post("/agenerate", json={"prompt": "Say hello", **body}, headers={"Accept": accept})


def status_of(client: FlaskClient, worker: ScriptedWorker, *, wait: int = 5) -> Any:
    return client.get(f"/jobs/{worker.turns[0].claim.job_id}?wait={wait}").get_json()["status"]


@pytest.mark.parametrize(("accept", "body"), [("text/event-stream", {}), ("*/*", {"stream": True})])
def test_the_events_hold_the_text_and_nothing_else(
    client: FlaskClient, worker: ScriptedWorker, accept: str, body: dict[str, bool]
) -> None:
    response = stream(client, accept=accept, **body)
    events = received(response)
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    assert [(event.name, event.data) for event in events] == [("message", "Hello"), ("message", " world")]
    assert all(event.id for event in events)


def test_the_operator_may_choose_that_agenerate_streams(
    make_app: MakeApp, config: Config, worker: ScriptedWorker
) -> None:
    streaming = make_app(replace(config, generate=GenerateConfig(agenerate="stream"))).test_client()
    for accept, body in (("*/*", {}), ("application/json", {"stream": None})):
        assert "".join(event.data for event in received(stream(streaming, accept=accept, **body))) == "Hello world"
    job = stream(streaming, accept="*/*", stream=False)
    assert (job.status_code, job.get_json()["object"]) == (202, "job")


def test_a_stream_is_neither_cached_nor_buffered(client: FlaskClient, worker: ScriptedWorker) -> None:
    headers = stream(client).headers
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")


def test_a_stream_that_breaks_off_can_be_resumed_from_its_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    left = threading.Event()
    worker.play = play_of("one", left, " two", Turn.succeed)
    response = stream(client, on_disconnect="continue")
    (seen,) = parse(next(response.iter_encoded()).decode())
    response.close()
    left.set()
    rest = received(client.get(f"{response.headers['Location']}/events", headers={"Last-Event-ID": str(seen.id)}))
    assert [event.json.get("text") for event in rest] == [" two", None]


def test_texts_of_several_lines_arrive_whole(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("a\nb", "\n", "\r\n c", Turn.succeed)
    assert "".join(event.data for event in received(stream(client))) == "a\nb\n\n c"


def test_an_empty_text_is_an_empty_stream(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("", Turn.succeed)
    response = stream(client)
    assert (response.status_code, response.get_data()) == (200, b"")


def test_pieces_go_out_as_they_come(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of("one", more, "two", Turn.succeed)
    response = stream(client)
    chunks = response.iter_encoded()
    assert parse(next(chunks).decode())[0].data == "one"
    more.set()
    assert parse(next(chunks).decode())[0].data == "two"
    assert list(chunks) == []


def test_a_failure_after_the_first_piece_is_an_event_named_error(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("one", lambda turn: turn.fail("engine_error", "it broke"))
    text, error = received(stream(client))
    assert (text.name, text.data, error.name) == ("message", "one", "error")
    assert (error.json["code"], error.json["status"], error.json["detail"]) == ("engine_error", 500, "it broke")


def test_a_stream_without_output_gets_comments_until_text_comes(
    client: FlaskClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.1)
    resume = threading.Event()
    worker.play = play_of(resume, "late", Turn.succeed)
    response = stream(client)
    chunks = response.iter_encoded()
    assert [next(chunks), next(chunks)] == [event_stream.COMMENT, event_stream.COMMENT]
    resume.set()
    assert received_data(b"".join(chunks)) == ["late"]


def received_data(body: bytes) -> list[str]:
    return [event.data for event in parse(body.decode())]


def test_leaving_a_stream_cancels_its_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("one", Turn.wait_for_cancel)
    response = stream(client)
    next(response.iter_encoded())
    response.close()
    assert status_of(client, worker) == Status.CANCELED


def test_leaving_a_stream_before_its_first_byte_cancels_its_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("one", Turn.wait_for_cancel)
    stream(client).close()
    assert status_of(client, worker) == Status.CANCELED


def test_with_on_disconnect_continue_the_job_continues(client: FlaskClient, worker: ScriptedWorker) -> None:
    left = threading.Event()
    worker.play = play_of("one", left, " two", Turn.succeed)
    response = stream(client, on_disconnect="continue")
    next(response.iter_encoded())
    response.close()
    left.set()
    assert status_of(client, worker) == Status.SUCCEEDED


def test_a_stream_read_to_its_end_cancels_nothing(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = stream(client)
    response.get_data()
    response.close()
    assert status_of(client, worker, wait=0) == Status.SUCCEEDED


def test_a_stream_frees_its_place_among_the_waiters(client: FlaskClient, worker: ScriptedWorker) -> None:
    waiters = client.application.extensions["llm_api"].jobs.waiters
    responses = [stream(client) for _ in range(3)]
    assert waiters._requests >= 3
    for response in responses:
        response.close()
    deadline = time.monotonic() + scaled(5)
    while waiters._requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waiters._requests == 0


def test_the_worker_knows_from_the_start_that_a_client_follows(client: FlaskClient, worker: ScriptedWorker) -> None:
    followed: list[bool] = []

    def play(turn: Turn) -> None:
        followed.append(turn.claim.followed)
        turn.succeed()

    worker.play = play
    stream(client).get_data()
    assert followed == [True]


def test_a_job_canceled_while_queued_ends_its_stream_with_a_conflict(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.stop()

    def cancel() -> None:
        other = client.application.test_client()
        while not (jobs := other.get("/jobs").get_json()["data"]):
            time.sleep(0.02)
        other.delete(jobs[0]["urls"]["self"])

    canceler = threading.Thread(target=cancel, daemon=True)
    canceler.start()
    response = stream(client)
    canceler.join(scaled(5))
    assert (response.status_code, response.get_json()["code"]) == (409, "job_canceled")
