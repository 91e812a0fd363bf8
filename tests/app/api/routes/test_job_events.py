import threading
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from app.api import event_stream
from app.jobs import keys
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import Received, parse, received
from tests.waiting import scaled

END = {
    "status": "succeeded",
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 2},
    "finish_reason": "stop",
}


def submit(client: FlaskClient) -> str:
    path: str = client.post("/agenerate", json={"prompt": "Say hello"}).get_json()["urls"]["self"]
    return path


def ended(client: FlaskClient) -> str:
    path = submit(client)
    assert client.get(f"{path}?wait=10").get_json()["status"] == "succeeded"
    return f"{path}/events"


def one_by_one(chunks: Iterator[bytes]) -> Iterator[Received]:
    for chunk in chunks:
        yield from parse(chunk.decode())


def test_the_events_of_a_job_that_has_ended_can_be_read_again(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = client.get(ended(client))
    events = received(response)
    assert response.mimetype == "text/event-stream"
    assert [event.name for event in events] == ["started", "delta", "delta", "end"]
    assert [event.json for event in events] == [
        {"attempt": 1},
        {"text": "Hello"},
        {"text": " world"},
        END,
    ]


def test_reading_resumes_after_the_event_named(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = ended(client)
    events = received(client.get(path))
    for place, event in enumerate(events[:-1]):
        rest = events[place + 1 :]
        assert received(client.get(path, headers={"Last-Event-ID": str(event.id)})) == rest
        assert received(client.get(f"{path}?after={event.id}")) == rest


def test_a_browser_that_has_seen_the_end_gets_204_and_stops(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = ended(client)
    end = received(client.get(path))[-1]
    response = client.get(path, headers={"Last-Event-ID": str(end.id)})
    assert (response.status_code, response.get_data()) == (204, b"")


def test_a_running_job_is_followed_from_its_beginning_to_its_end(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of("one", more, "two", Turn.succeed)
    response = client.get(f"{submit(client)}/events")
    events = one_by_one(response.iter_encoded())
    assert [next(events).name, next(events).json] == ["started", {"text": "one"}]
    more.set()
    assert [event.name for event in events] == ["delta", "end"]


def test_following_can_be_resumed_where_it_broke_off(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of("one", more, "two", Turn.succeed)
    path = f"{submit(client)}/events"
    first = client.get(path)
    events = one_by_one(first.iter_encoded())
    next(events)
    seen = next(events)
    first.close()
    second = client.get(path, headers={"Last-Event-ID": str(seen.id)})
    more.set()
    assert [event.json for event in one_by_one(second.iter_encoded())] == [{"text": "two"}, END]


def test_the_worker_is_notified_that_a_client_follows(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of(more, Turn.succeed)
    path = submit(client)
    response = client.get(f"{path}/events")
    assert worker.redis.hget(keys.job(path.rpartition("/")[2]), "followed") == "1"
    more.set()
    response.get_data()


def test_leaving_never_cancels_the_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of("one", more, Turn.succeed)
    path = submit(client)
    response = client.get(f"{path}/events")
    next(response.iter_encoded())
    response.close()
    more.set()
    assert client.get(f"{path}?wait=10").get_json()["status"] == "succeeded"


def test_the_head_does_not_wait_for_a_job_that_has_not_begun(
    client: FlaskClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.2)
    worker.stop()
    path = submit(client)
    response = client.get(f"{path}/events")
    chunks = response.iter_encoded()
    assert next(chunks) == next(chunks) == event_stream.COMMENT
    response.close()


def test_a_job_deleted_under_its_follower_ends_the_stream(client: FlaskClient, worker: ScriptedWorker) -> None:
    entered = threading.Event()

    def play(turn: Turn) -> None:
        entered.set()
        turn.wait_for_cancel()

    worker.play = play
    path = submit(client)
    assert entered.wait(scaled(5))
    response = client.get(f"{path}/events")
    client.application.test_client().delete(path)
    assert [event.name for event in one_by_one(response.iter_encoded())][-1] == "end"


@pytest.mark.parametrize("value", ["x", "1", "1-", "-1", "1-1-1", "1-0\u00e9", "\u0663-0", "9" * 20 + "-0", ""])
def test_an_event_id_that_cannot_be_is_named(client: FlaskClient, worker: ScriptedWorker, value: str) -> None:
    path = ended(client)
    response = client.get(path, query_string={"after": value})
    assert (response.status_code, list(response.get_json()["errors"])) == (422, ["after"])


def test_a_wrong_last_event_id_is_named(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = client.get(ended(client), headers={"Last-Event-ID": "yesterday"})
    assert list(response.get_json()["errors"]) == ["Last-Event-ID"]


def test_head_answers_at_once_for_a_job_that_runs(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    response = client.head(f"{submit(client)}/events")
    assert (response.status_code, response.mimetype, response.get_data()) == (200, "text/event-stream", b"")
