import re
import threading
import time
import uuid
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api import queue_estimate
from app.config.settings import Config
from app.jobs import keys
from app.jobs.worker_registry import WorkerState
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.waiting import scaled

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "0f0e7c1c-6a53-4c3e-9d33-5a1b0c7d2e4f"


def submit(client: FlaskClient, /, **body: Any) -> str:
    path: str = client.post("/agenerate", json={"prompt": "Say hello", **body}).get_json()["urls"]["self"]
    return path


def test_the_job_object_has_the_documented_fields(client: FlaskClient, worker: ScriptedWorker) -> None:
    job = client.get(f"{submit(client)}?wait=10").get_json()
    here = f"/jobs/{job['id']}"
    assert " ".join(job) == (
        "id object kind model status priority attempt queue_position estimated_start_at created_at not_before "
        "started_at completed_at output usage metrics error webhook urls"
    )
    assert uuid.UUID(job["id"]).version == 4
    assert all(RFC_3339.fullmatch(job[name]) for name in ("created_at", "started_at", "completed_at"))
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    constant = {name: job[name] for name in ("object", "kind", "model", "status", "priority", "attempt")}
    assert constant == {
        "object": "job",
        "kind": "generate",
        "model": "scripted",
        "status": "succeeded",
        "priority": "normal",
        "attempt": 1,
    }
    assert job["output"] == {"text": "Hello world", "finish_reason": "stop", "logprobs": None}
    assert job["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 2}
    assert set(job["metrics"]) == {"source", "queue_seconds", "time_to_first_token_seconds", "tokens_per_second"}
    assert [job[name] for name in ("queue_position", "estimated_start_at", "error", "webhook")] == [None] * 4
    assert job["urls"] == {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}


def test_a_queued_job_has_its_position(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    low, normal, high = (submit(client, priority=priority) for priority in ("low", "normal", "high"))
    assert [client.get(path).get_json()["queue_position"] for path in (high, normal, low)] == [1, 2, 3]
    job = client.get(low).get_json()
    assert [job[name] for name in ("started_at", "completed_at", "output", "usage", "metrics", "error")] == [None] * 6


@pytest.fixture
def queued(client: FlaskClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of four queued jobs, in their order. Jobs have lately taken 60 s, four at once."""
    monkeypatch.setattr(queue_estimate, "FRESH_SECONDS", 0.0)
    worker.stop()
    worker.redis.execute_command("HSET", keys.shares("scripted"), "seconds", "60")
    return [submit(client) for _ in range(4)]


def seconds_until(time_of_day: str) -> float:
    assert RFC_3339.fullmatch(time_of_day)
    return datetime.fromisoformat(time_of_day).timestamp() - time.time()


def occupy_slots(worker: ScriptedWorker, count: int) -> None:
    """Let other jobs take so many of the worker's four slots."""
    for number in range(count):
        worker.redis.execute_command("ZADD", keys.running("scripted"), int(time.time()) + 60, f"job-{number}")


def test_a_queued_job_has_its_estimated_start(client: FlaskClient, worker: ScriptedWorker, queued: list[str]) -> None:
    occupy_slots(worker, 4)
    single = [client.get(path).get_json()["estimated_start_at"] for path in queued]
    listed = [job["estimated_start_at"] for job in client.get("/jobs").get_json()["data"]][::-1]
    for starts in (single, listed):
        assert [seconds_until(at) for at in starts] == pytest.approx([15, 30, 45, 60], abs=5)


def test_free_slots_take_the_first_jobs_of_the_order_at_once(
    client: FlaskClient, worker: ScriptedWorker, queued: list[str]
) -> None:
    occupy_slots(worker, 2)
    starts = [client.get(path).get_json()["estimated_start_at"] for path in queued]
    assert [seconds_until(at) for at in starts] == pytest.approx([0, 0, 15, 30], abs=5)


def test_an_accepted_job_has_its_estimated_start(
    client: FlaskClient, worker: ScriptedWorker, queued: list[str]
) -> None:
    occupy_slots(worker, 4)
    accepted = client.post("/agenerate", json={"prompt": "x"}).get_json()
    assert accepted["queue_position"] == 5
    assert seconds_until(accepted["estimated_start_at"]) == pytest.approx(75, abs=5)


def test_no_start_is_estimated_where_nothing_is_measured_or_no_worker_serves(
    client: FlaskClient, worker: ScriptedWorker, queued: list[str]
) -> None:
    worker.redis.execute_command("HDEL", keys.shares("scripted"), "seconds")
    assert client.get(queued[0]).get_json()["estimated_start_at"] is None
    worker.redis.execute_command("HSET", keys.shares("scripted"), "seconds", "60")
    worker.announce(WorkerState.DRAINING)
    job = client.get(queued[0]).get_json()
    assert (job["queue_position"], job["estimated_start_at"]) == (1, None)


def test_a_job_that_was_handed_back_has_started_already(
    client: FlaskClient, worker: ScriptedWorker, queued: list[str]
) -> None:
    claim = worker.store.claim("scripted")
    assert claim is not None and worker.store.hand_back(claim)
    job = client.get(queued[0]).get_json()
    assert (job["status"], job["queue_position"], job["estimated_start_at"]) == ("queued", 1, None)


def test_a_page_of_queued_jobs_costs_no_more_readings_than_one(
    make_app: MakeApp, config: Config, worker: ScriptedWorker, queued: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_estimate, "FRESH_SECONDS", 1.0)
    worker.redis.execute_command("CONFIG", "RESETSTAT")
    assert len(make_app(config).test_client().get("/jobs").get_json()["data"]) == len(queued)
    assert worker.redis.execute_command("INFO", "commandstats")["cmdstat_smembers"]["calls"] == 1


def test_a_failed_job_has_its_reason(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("engine_error", "it broke")
    job = client.get(f"{submit(client)}?wait=10").get_json()
    assert (job["status"], job["error"]) == ("failed", {"code": "engine_error", "message": "it broke"})


def test_wait_returns_as_soon_as_the_job_ends(client: FlaskClient, worker: ScriptedWorker) -> None:
    release = threading.Event()
    worker.play = play_of(release, "late", Turn.succeed)
    path = submit(client)
    threading.Timer(0.3, release.set).start()
    started = time.monotonic()
    assert client.get(f"{path}?wait=30").get_json()["status"] == "succeeded"
    assert 0.2 < time.monotonic() - started < scaled(5)


def test_wait_returns_the_job_as_it_is_when_the_time_is_over(client: FlaskClient, worker: ScriptedWorker) -> None:
    release = threading.Event()
    worker.play = play_of(release, "late", Turn.succeed)
    path = submit(client)
    assert client.get(f"{path}?wait=0.2").get_json()["status"] in ("queued", "processing")
    release.set()


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", ""])
def test_a_wait_that_cannot_be_is_refused(client: FlaskClient, wait: str) -> None:
    response = client.get(f"/jobs/{UNKNOWN}?wait={wait}")
    assert (response.status_code, list(response.get_json()["errors"])) == (422, ["wait"])


CALLS = [("GET", ""), ("GET", "/events"), ("PATCH", ""), ("POST", "/cancel"), ("DELETE", "")]
CHANGE = {"priority": "low"}


@pytest.mark.parametrize(("method", "suffix"), CALLS)
def test_an_unknown_job_is_not_found(client: FlaskClient, method: str, suffix: str) -> None:
    response = client.open(f"/jobs/{UNKNOWN}{suffix}", method=method, json=CHANGE)
    assert (response.status_code, response.get_json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize(
    "job_id", ["3", "x" * 36, UNKNOWN + "0", UNKNOWN.replace("-", ""), "%00", "%ff", "%F0%9F%98%80"]
)
@pytest.mark.parametrize(("method", "suffix"), CALLS)
def test_a_malformed_job_id_is_named(client: FlaskClient, method: str, suffix: str, job_id: str) -> None:
    response = client.open(f"/jobs/{job_id}{suffix}", method=method, json=CHANGE)
    assert (response.status_code, list(response.get_json()["errors"])) == (422, ["job_id"])


def test_an_id_in_capitals_is_the_same_id(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = submit(client)
    assert client.get(path.upper().replace("/JOBS", "/jobs")).get_json()["urls"]["self"] == path


def test_the_priority_of_a_waiting_job_is_changed(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    first, second = submit(client), submit(client, priority="low")
    for _ in range(2):
        response = client.patch(second, json={"priority": "high"})
        job = response.get_json()
        assert (response.status_code, job["priority"], job["queue_position"]) == (200, "high", 1)
    assert client.get(first).get_json()["queue_position"] == 2
    assert [job["priority"] for job in client.get("/jobs").get_json()["data"]] == ["high", "normal"]


def test_the_priority_of_a_job_that_has_ended_stays(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = submit(client)
    client.get(f"{path}?wait=10")
    response = client.patch(path, json={"priority": "high"})
    assert (response.status_code, response.get_json()["code"]) == (409, "conflict")
    assert response.get_json()["detail"] == (
        "the job is succeeded; only a job that is queued has a priority that can be changed"
    )
    assert client.get(path).get_json()["priority"] == "normal"


@pytest.mark.parametrize(
    ("body", "field", "cure"),
    [
        ({}, "priority", "required"),
        ({"priority": None}, "priority", "null"),
        ({"priority": "urgent"}, "priority", "Must be one of: high, normal, low."),
        ({"priority": 1}, "priority", "Must be a string."),
        ({"priority": "low", "status": "canceled"}, "status", "Known parameters: priority"),
    ],
)
def test_a_change_that_cannot_be_is_named_with_its_cure(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], field: str, cure: str
) -> None:
    worker.stop()
    path = submit(client)
    response = client.patch(path, json=body)
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])
    assert cure in response.get_json()["errors"][field][0]
    assert client.get(path).get_json()["priority"] == "normal"


def test_canceling_a_queued_job_ends_it(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    response = client.post(f"{submit(client)}/cancel")
    assert (response.status_code, response.get_json()["status"]) == (200, "canceled")


def test_canceling_a_running_job_notifies_its_worker(client: FlaskClient, worker: ScriptedWorker) -> None:
    entered, answered = threading.Event(), threading.Event()
    worker.play = play_of(lambda turn: entered.set(), answered, Turn.wait_for_cancel)
    path = submit(client)
    assert entered.wait(scaled(5))
    response = client.post(f"{path}/cancel")
    assert (response.status_code, response.get_json()["status"]) == (202, "processing")
    answered.set()
    assert client.get(f"{path}?wait=10").get_json()["status"] == "canceled"


def test_canceling_a_job_that_has_ended_changes_nothing(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = submit(client)
    before = client.get(f"{path}?wait=10").get_json()
    response = client.post(f"{path}/cancel")
    assert (response.status_code, response.get_json()) == (200, before)


def test_deleting_a_running_job_cancels_it(client: FlaskClient, worker: ScriptedWorker) -> None:
    entered = threading.Event()
    worker.play = play_of(lambda turn: entered.set(), Turn.wait_for_cancel)
    path = submit(client)
    assert entered.wait(scaled(5))
    assert client.delete(path).status_code == 202
    assert client.get(f"{path}?wait=10").get_json()["status"] == "canceled"


def test_deleting_a_job_that_has_ended_forgets_it(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = submit(client)
    client.get(f"{path}?wait=10")
    response = client.delete(path)
    assert (response.status_code, response.get_data()) == (204, b"")
    assert client.get(path).status_code == client.get(f"{path}/events").status_code == 404
    assert client.get("/jobs").get_json()["data"] == []


def test_the_list_shows_the_newest_first(client: FlaskClient, worker: ScriptedWorker) -> None:
    paths = [submit(client) for _ in range(3)]
    listed = client.get("/jobs").get_json()
    assert (listed["object"], listed["next_cursor"]) == ("list", None)
    assert [job["urls"]["self"] for job in listed["data"]] == paths[::-1]


def test_the_pages_of_the_list_hold_every_job_once(client: FlaskClient, worker: ScriptedWorker) -> None:
    paths = [submit(client) for _ in range(7)]
    listed: list[str] = []
    query = "limit=3"
    for _ in range(3):
        page = client.get(f"/jobs?{query}").get_json()
        listed += [job["urls"]["self"] for job in page["data"]]
        query = f"limit=3&cursor={page['next_cursor']}"
    assert listed == paths[::-1]
    assert page["next_cursor"] is None


def test_the_list_can_be_narrowed_to_a_status(client: FlaskClient, worker: ScriptedWorker) -> None:
    done = submit(client)
    client.get(f"{done}?wait=10")
    worker.play = lambda turn: turn.fail("engine_error", "it broke")
    failed = submit(client)
    client.get(f"{failed}?wait=10")
    assert [job["urls"]["self"] for job in client.get("/jobs?status=failed").get_json()["data"]] == [failed]
    assert [job["urls"]["self"] for job in client.get("/jobs?status=succeeded").get_json()["data"]] == [done]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("status=done", "status"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=1.5", "cursor"),
        ("cursor=nan", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%C3%A9", "cursor"),
    ],
)
def test_a_wrong_query_is_named(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/jobs?{query}")
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])


def test_with_keys_each_client_sees_only_its_own_jobs(locked_app: Flask, worker: ScriptedWorker) -> None:
    mine, other = ({"Authorization": f"Bearer {key}"} for key in ("first-key", "second-key"))
    client = locked_app.test_client()
    path = client.post("/agenerate", json={"prompt": "x"}, headers=mine).get_json()["urls"]["self"]
    assert client.get(f"{path}?wait=10", headers=mine).status_code == 200
    for method, suffix in CALLS:
        response = client.open(f"{path}{suffix}", method=method, headers=other, json=CHANGE)
        assert (response.status_code, response.get_json()["code"]) == (404, "job_not_found")
    assert client.get("/jobs", headers=other).get_json()["data"] == []
    assert len(client.get("/jobs", headers=mine).get_json()["data"]) == 1


def test_a_job_that_has_ended_is_run_again_as_a_new_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("engine_error", "the engine failed")
    first = client.get(f"{submit(client, prompt='Say it', priority='low')}?wait=10").get_json()
    assert first["status"] == "failed"
    worker.play = play_of("It", Turn.succeed)
    answer = client.post(f"/jobs/{first['id']}/retry")
    assert answer.status_code == 202
    again = client.get(f"{answer.headers['Location']}?wait=10").get_json()
    assert again["id"] != first["id"]
    assert (again["status"], again["output"]["text"], again["priority"]) == ("succeeded", "It", "low")
    assert worker.turns[-1].request.prompt == "Say it"


def test_a_job_is_run_again_with_the_priority_that_it_had_at_last(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    path = submit(client, priority="low")
    client.patch(path, json={"priority": "high"})
    client.post(f"{path}/cancel")
    assert client.post(f"{path}/retry").get_json()["priority"] == "high"


def test_a_job_that_still_runs_cannot_be_run_again(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    path = submit(client)
    answer = client.post(f"{path}/retry")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert answer.get_json()["detail"] == "the job is queued; cancel it first, or wait for its end"


def test_a_long_request_is_not_kept_and_says_so_when_it_is_to_run_again(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    path = submit(client, prompt="long " * 4000)
    client.get(f"{path}?wait=10")
    answer = client.post(f"{path}/retry")
    assert answer.status_code == 409
    assert answer.get_json()["detail"].endswith("is not kept, as it is longer than 16 KiB; send it again")


def test_nobody_runs_the_job_of_another_key_again(locked_app: Flask, worker: ScriptedWorker) -> None:
    client = locked_app.test_client()
    keys_of_two = [{"Authorization": f"Bearer {key}"} for key in ("first-key", "second-key")]
    made = client.post("/agenerate", json={"prompt": "mine"}, headers=keys_of_two[0])
    assert made.status_code == 202
    assert client.post(f"{made.headers['Location']}/retry", headers=keys_of_two[1]).status_code == 404
