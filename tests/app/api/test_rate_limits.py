"""The limits of API keys, as clients see them."""

import re
import threading
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.rate_limits import duration
from app.config.settings import AuthConfig, Config
from tests.app.api.batches.conftest import Batches, line, make_driver
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn
from tests.valkey import Valkey

PROMPT = {"prompt": "x" * 40, "max_tokens": 10}
CHAT = {"messages": [{"role": "user", "content": "x" * 40}], "max_tokens": 10}


@pytest.fixture(scope="module")
def admin_app(make_app: MakeApp, valkey: Valkey) -> Flask:
    return make_app(Config(model_name=MODEL, redis_url=valkey.url, auth=AuthConfig(admin_keys=("root",))))


class LimitedClient:
    """Sends requests with a key that has these limits."""

    def __init__(self, app: Flask, **limits: int) -> None:
        self.app = app
        root = {"Authorization": "Bearer root"}
        made = app.test_client().post("/admin/keys", json={"name": "limited", "limits": limits}, headers=root)
        assert made.status_code == 201, made.text
        self.client: FlaskClient = app.test_client()
        self.client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {made.get_json()['key']}"

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.client.post(path, json=body)


@pytest.fixture
def app_with_worker(admin_app: Flask, redis_url: str, worker: ScriptedWorker) -> Flask:
    return admin_app


def ratelimits(response: Any) -> dict[str, str]:
    return {
        name.lower().removeprefix("x-ratelimit-"): value
        for name, value in response.headers.items()
        if name.lower().startswith("x-ratelimit-")
    }


def test_a_response_shows_what_is_left_of_the_minute(app_with_worker: Flask) -> None:
    client = LimitedClient(app_with_worker, requests_per_minute=60, tokens_per_minute=6000)
    response = client.post("/v1/completions", PROMPT)
    assert response.status_code == 200
    left = ratelimits(response)
    assert re.fullmatch(r"1s|[0-9]+ms", left.pop("reset-requests"))
    assert left | {"reset-tokens": ""} == {
        "limit-requests": "60",
        "remaining-requests": "59",
        "limit-tokens": "6000",
        "remaining-tokens": "5995",  # three of the prompt and two of the answer: settled
        "reset-tokens": "",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_and_an_error_show_it_too(app_with_worker: Flask, stream: bool) -> None:
    client = LimitedClient(app_with_worker, requests_per_minute=60)
    body = {**CHAT, "stream": True} if stream else {**CHAT, "temperature": "hot"}
    response = client.post("/v1/chat/completions", body)
    assert response.status_code == (200 if stream else 400)
    assert ratelimits(response)["remaining-requests"] == "59"
    assert "limit-tokens" not in ratelimits(response)
    response.close()


def test_one_request_too_many_gets_429_in_openais_shape_and_as_a_problem(app_with_worker: Flask) -> None:
    client = LimitedClient(app_with_worker, requests_per_minute=2)
    assert [client.post("/generate", PROMPT).status_code for _ in range(2)] == [200, 200]
    refused = client.post("/v1/chat/completions", CHAT)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    error = refused.get_json()["error"]
    assert (error["code"], error["message"]) == (
        "rate_limit_exceeded",
        "requests_per_minute: 2 requests a minute are used; send less often",
    )
    assert ratelimits(refused)["remaining-requests"] == "0" and "x-should-retry" not in refused.headers
    problem = client.post("/agenerate", PROMPT).get_json()
    assert (problem["status"], problem["code"], problem["limit"]) == (429, "rate_limit_exceeded", "requests_per_minute")


def test_what_makes_no_work_is_not_counted(app_with_worker: Flask, worker: ScriptedWorker) -> None:
    client = LimitedClient(app_with_worker, requests_per_minute=1)
    job = client.post("/agenerate", PROMPT).get_json()
    assert client.post("/agenerate", PROMPT).status_code == 429
    for response in (client.client.get("/jobs"), client.client.get("/v1/models"), client.post(job["urls"]["cancel"])):
        assert response.status_code < 300 and not ratelimits(response)


def test_too_many_jobs_get_429_with_a_time_to_come_back(admin_app: Flask, redis_url: str) -> None:
    ScriptedWorker(redis_url, MODEL).announce()  # and claim nothing
    client = LimitedClient(admin_app, concurrent_jobs=1)
    job = client.post("/agenerate", PROMPT).get_json()
    refused = client.post("/agenerate", PROMPT)
    assert (refused.status_code, refused.get_json()["limit"]) == (429, "concurrent_jobs")
    assert int(refused.headers["Retry-After"]) >= 1
    client.post(job["urls"]["cancel"])
    assert client.post("/agenerate", PROMPT).status_code == 202


def test_a_spent_budget_is_not_to_be_retried(app_with_worker: Flask) -> None:
    client = LimitedClient(app_with_worker, tokens_per_day=20)
    assert client.post("/v1/completions", PROMPT).status_code == 200
    refused = client.post("/v1/completions", PROMPT)
    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false" and 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert error["message"] == "tokens_per_day: 20 tokens of the day are used; it ends at midnight UTC"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", {**CHAT, "max_tokens": 51}, "max_tokens"),
        ("/v1/chat/completions", {"messages": CHAT["messages"], "max_completion_tokens": 51}, "max_completion_tokens"),
        ("/v1/responses", {"input": "x", "max_output_tokens": 51}, "max_output_tokens"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 51}, "max_tokens"),
    ],
)
def test_more_tokens_than_the_key_allows_are_refused_by_the_clients_name(
    app_with_worker: Flask, path: str, body: dict[str, Any], name: str
) -> None:
    response = LimitedClient(app_with_worker, max_tokens=50).post(path, body)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, name)
    assert error["message"] == f"{name}: Must be at most 50, the limit of this API key."


def test_a_chat_that_asks_for_as_many_as_fit_gets_as_many_as_its_key_allows(
    app_with_worker: Flask, worker: ScriptedWorker
) -> None:
    client = LimitedClient(app_with_worker, max_tokens=50)
    assert client.post("/v1/chat/completions", {"messages": CHAT["messages"]}).status_code == 200
    assert client.post("/generate", {"prompt": "x", "params": {"n_predict": -1}}).status_code == 200
    assert client.post("/generate", {"prompt": "x"}).status_code == 200
    assert [turn.request.params["max_tokens"] for turn in worker.turns] == [50, 50, 50]


def test_lines_of_a_batch_over_a_limit_wait_instead_of_failing(
    app_with_worker: Flask, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.queue_estimate.FRESH_SECONDS", 0.0)
    running, most = 0, 0
    lock = threading.Lock()

    def play(turn: Turn) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        turn.succeed()

    worker.play = play
    client = LimitedClient(app_with_worker, concurrent_jobs=2, requests_per_minute=1, max_tokens=50)
    batches = Batches(app_with_worker, client.client, make_driver(app_with_worker))
    lines = [line(f"line {number}", max_tokens=5) for number in range(5)]
    done = batches.finish(batches.create(*lines, line("long", max_tokens=51)))
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 6, "completed": 5, "failed": 1})
    (error,) = batches.content(done["error_file_id"]).values()
    assert (error["custom_id"], error["response"]["body"]["error"]["param"]) == ("long", "max_tokens")
    assert most == 1, "half of what the key may run at once"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "1ms"), (0.02, "20ms"), (1.5, "1.5s"), (59.999, "59.999s"), (60, "1m0s"), (83.5, "1m23.5s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
