"""The options of a job, as every endpoint that makes a job reads them."""

import json
import math
import threading
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.config.settings import Config
from app.jobs import keys
from tests.app.api.scripted_worker import ScriptedWorker
from tests.lost_worker import reaper
from tests.waiting import scaled, until

ENDPOINTS = [("/generate", {"prompt": "x"}), ("/agenerate", {"prompt": "x"}), ("/embeddings", {"text": "x"})]


def submit(client: FlaskClient, **body: Any) -> str:
    path: str = client.post("/agenerate", json={"prompt": "x", **body}).get_json()["urls"]["self"]
    return path


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_the_worker_gets_both_times(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[1.0]])
    made = client.post(path, json={**body, "expires_in": 2.5, "ttl": 30})
    assert made.status_code < 300
    job = client.get("/jobs").get_json()["data"][0]
    client.get(f"{job['urls']['self']}?wait=10")
    request = worker.turns[0].request
    assert (request.expires_in_seconds, request.ttl_seconds) == (2.5, 30)


EVERY_ENDPOINT = [
    *ENDPOINTS,
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/embeddings", {"input": "x"}),
]


@pytest.mark.parametrize(("path", "body"), EVERY_ENDPOINT)
def test_every_endpoint_takes_a_salt_to_the_worker(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[1.0]])
    assert client.post(path, json={**body, "cache_salt": "a b"}).status_code < 300
    assert client.post(path, json={**body, "cache_salt": None}).status_code < 300
    until(lambda: len(worker.turns) == 2)
    assert [turn.request.cache_salt for turn in worker.turns] == ["a b", ""]
    for wrong in ("", 5, ["a"], "a" * 1025):
        response = client.post(path, json={**body, "cache_salt": wrong})
        assert response.status_code in (400, 422) and "cache_salt" in response.get_data(as_text=True)


@pytest.mark.parametrize(
    ("path", "body"),
    [*(one for one in EVERY_ENDPOINT if one[0] != "/agenerate"), ("/agenerate", {"prompt": "x", "stream": True})],
)
def test_a_request_that_waits_is_not_for_later(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    response = client.post(path, json={**body, "not_before": "+3600"})
    assert response.status_code in (400, 422) and "/agenerate without a stream" in response.text
    assert worker.turns == [] and client.get("/jobs").get_json()["data"] == []


def test_a_response_in_the_background_may_be_for_later(client: FlaskClient, worker: ScriptedWorker) -> None:
    made = client.post("/v1/responses", json={"input": "x", "background": True, "not_before": "+3600"}).get_json()
    assert made["status"] == "queued" and client.get("/jobs").get_json()["data"][0]["not_before"]
    assert client.post(f"/v1/responses/{made['id']}/cancel").get_json()["status"] == "cancelled"


def test_a_job_for_later_is_queued_and_shows_when_it_may_start(client: FlaskClient, worker: ScriptedWorker) -> None:
    for sent in ("2049-01-31T22:00:00Z", 2_495_743_200):
        job = client.post("/agenerate", json={"prompt": "x", "not_before": sent}).get_json()
        assert (job["status"], job["not_before"]) == ("queued", "2049-01-31T22:00:00.000000Z")
        assert (job["queue_position"], job["estimated_start_at"]) == (None, None)
        assert client.post(job["urls"]["cancel"]).get_json()["status"] == "canceled"
    assert worker.turns == []
    at_once = client.get(f"{submit(client)}?wait=10").get_json()
    assert (at_once["status"], at_once["not_before"]) == ("succeeded", None)


WRONG: dict[str, tuple[Any, ...]] = {
    "expires_in": (0, 0.99, -1, "5", True, math.nan, math.inf, []),
    "ttl": (0, -1, 1.5, "5", True, math.inf, {}),
    "not_before": (0, 3600, "3600", "tomorrow", "2030-01-31T22:00:00", True, math.inf, []),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_a_time_that_cannot_be_is_named(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any], name: str, value: Any
) -> None:
    response = client.post(path, data=json.dumps({**body, name: value}))
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [name])
    assert worker.turns == []


@pytest.mark.parametrize("body", [{"expires_in": 1e300}, {"ttl": 1e300}, {"ttl": 10**40}])
def test_a_time_beyond_reason_is_still_a_time(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any]
) -> None:
    job = client.get(f"{submit(client, **body)}?wait=10").get_json()
    assert job["status"] == "succeeded"


def test_a_job_is_kept_for_its_own_time_to_live(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = submit(client, ttl=1)
    assert client.get(f"{path}?wait=10").get_json()["status"] == "succeeded"
    deadline = time.monotonic() + scaled(5)
    while client.get(path).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/jobs").get_json()["data"] == []


def test_a_time_to_live_is_never_longer_than_the_servers(
    client: FlaskClient, worker: ScriptedWorker, config: Config
) -> None:
    path = submit(client, ttl=config.jobs.ttl * 1000)
    client.get(f"{path}?wait=10")
    assert ttl_of(worker, path) == pytest.approx(config.jobs.ttl, abs=10)


def ttl_of(worker: ScriptedWorker, path: str) -> int:
    seconds: int = worker.redis.execute_command("TTL", keys.job(path.rpartition("/")[2]))
    return seconds


def test_a_job_that_waits_too_long_expires_and_is_never_started(
    client: FlaskClient, worker: ScriptedWorker, redis_url: str
) -> None:
    worker.stop()
    path = submit(client, expires_in=1)
    time.sleep(1.01)
    reaper(redis_url, model="scripted").reap()
    job = client.get(path).get_json()
    assert (job["status"], job["started_at"], job["queue_position"], job["attempt"]) == ("expired", None, None, 0)
    assert job["completed_at"] is not None


@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream"])
def test_a_client_that_waits_for_a_job_gets_an_error_when_it_expires(
    client: FlaskClient, worker: ScriptedWorker, redis_url: str, path: str
) -> None:
    worker.stop()
    reaping = threading.Timer(1.1, reaper(redis_url, model="scripted").reap)
    reaping.start()
    response = client.post(path, json={"prompt": "x", "expires_in": 1, "stream": path.endswith("stream")})
    reaping.join()
    assert (response.status_code, response.get_json()["code"]) == (504, "expired")
    assert worker.turns == []
