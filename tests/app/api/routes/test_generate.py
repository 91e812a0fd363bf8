import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api import pending_jobs
from app.config.settings import Config
from app.jobs.job import Kind, Priority, Status
from app.jobs.worker_registry import WorkerState, withdraw
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.waiting import scaled, until


def generate(client: FlaskClient, /, *, accept: str = "*/*", **body: Any) -> TestResponse:
    return client.post("/generate", json={"prompt": "Say hello", **body}, headers={"Accept": accept})


def fails_with(code: str, message: str = "because", errors: dict[str, list[str]] | None = None) -> Any:
    return lambda turn: turn.fail(code, message, errors)


def test_generate_answers_with_the_text_as_a_json_string(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = generate(client)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_data() == b'"Hello world"'


def test_text_that_is_not_ascii_comes_as_utf8(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("né 😀\n", Turn.succeed)
    assert generate(client).get_data() == '"né 😀\\n"'.encode()
    assert generate(client, accept="text/plain").get_data() == "né 😀\n".encode()


def test_accept_text_plain_gets_the_bare_text(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = generate(client, accept="text/plain")
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.get_data() == b"Hello world"


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "*/*", "text/plain;q=0.5, application/json"])
def test_a_client_that_also_accepts_json_gets_json(client: FlaskClient, worker: ScriptedWorker, accept: str) -> None:
    assert generate(client, accept=accept).json == "Hello world"


def test_details_gets_the_job_object(client: FlaskClient, worker: ScriptedWorker) -> None:
    job = generate(client, details=True).get_json()
    assert (job["object"], job["status"], job["output"]["text"]) == ("job", "succeeded", "Hello world")
    assert client.get(job["urls"]["self"]).json == job


def test_the_worker_gets_the_parameters_of_the_request(client: FlaskClient, worker: ScriptedWorker) -> None:
    generate(client, params={"n_predict": 5, "temp": 0.2}, priority="high", timeout=3)
    request = worker.turns[0].request
    assert (request.kind, request.prompt, request.params) == (
        Kind.GENERATE,
        "Say hello",
        {"max_tokens": 5, "temperature": 0.2},
    )
    assert (request.priority, request.timeout_seconds, request.stream) == (Priority.HIGH, 3, False)


def test_a_timeout_is_never_longer_than_the_servers(client: FlaskClient, worker: ScriptedWorker) -> None:
    generate(client, timeout=3600)
    generate(client)
    assert [turn.request.timeout_seconds for turn in worker.turns] == [20, 20]


def test_fields_beside_prompt_and_params_are_tolerated(client: FlaskClient, worker: ScriptedWorker) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": False, "model": "x", "n": 1}
    assert generate(client, **body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 2},
        {"n_predict": 2},
        {"max_tokens": 2, "params": {}},
        {"max_tokens": 2, "params": None},
        {"max_tokens": 2, "params": {"max_tokens": 2}},
        {"max_tokens": 2, "params": {"max_tokens": None}},
        {"max_tokens": None, "params": {"max_tokens": 2}},
        {**{f"of another server {number}": 1 for number in range(50)}, "max_tokens": 2},
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/agenerate"])
def test_a_parameter_beside_params_is_used(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    response = client.post(path, json={"prompt": "x", **body})
    assert response.status_code in (200, 202)
    until(lambda: worker.turns)
    assert worker.turns[0].request.params == {"max_tokens": 2}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": 2, "params": {"max_tokens": 3}}, "max_tokens"),
        ({"max_tokens": 2, "params": {"n_predict": 3}}, "params.n_predict"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "hot", "params": {"max_tokens": 3}}, "temperature"),
        ({"max_tokens": 2, "params": {"temperature": "hot"}}, "params.temperature"),
        ({"max_new_tokens": 2, "params": {"max_tokens": 3}}, "max_new_tokens"),
        ({"parms": {"max_tokens": 2}}, "parms"),
        ({"max_token": 2}, "max_token"),
        ({"max_tokens": 2, "params": [1]}, "params"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"format": "json"}, "format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"think": False}, "think"),
        ({"n": 2}, "n"),
        ({"options": {"num_predict": 1}}, "options"),
        ({"system": "Be brief."}, "system"),
    ],
)
def test_a_parameter_that_would_be_lost_is_refused_by_its_name(
    client: FlaskClient, body: dict[str, Any], field: str
) -> None:
    response = generate(client, **body)
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])


def test_a_lost_parameter_is_told_what_to_send_instead(client: FlaskClient) -> None:
    def detail(**body: Any) -> str:
        return str(generate(client, **body).get_json()["detail"])

    assert detail(max_token=2) == "max_token: Unknown parameter. Did you mean 'max_tokens'?"
    assert detail(tool=[1]) == "tool: Unknown parameter. tools is not read here. Send it to /v1/chat/completions."
    assert "with another value" in detail(max_tokens=2, params={"max_tokens": 3})
    assert detail(options={"num_predict": 1}) == "options: Not read here. Put its members into params."


def test_names_that_ask_for_nothing_are_harmless(client: FlaskClient, worker: ScriptedWorker) -> None:
    nothing = {"tools": [], "format": "", "system": None, "options": {}, "n": 1, "best_of": 1}
    assert generate(client, **nothing).status_code == 200


def test_many_unknown_fields_cost_little(client: FlaskClient) -> None:
    began = time.process_time()
    response = generate(client, **{f"an_unknown_name_{number}": 1 for number in range(3000)})
    assert response.status_code == 503 and time.process_time() - began < 1


def test_messages_may_come_instead_of_a_prompt(client: FlaskClient, worker: ScriptedWorker) -> None:
    messages = [{"role": "user", "content": "hi"}]
    for path in ("/generate", "/agenerate"):
        assert client.post(path, json={"messages": messages}).status_code in (200, 202)
        while not worker.turns:
            time.sleep(0.01)
        request = worker.turns.pop().request
        assert (request.chat.messages, request.prompt) == (messages, "")


@pytest.mark.parametrize("messages", [[], "hi", [{"role": "robot"}], [{"role": "user", "content": "other"}]])
def test_a_prompt_goes_before_messages_whatever_they_are(
    client: FlaskClient, worker: ScriptedWorker, messages: Any
) -> None:
    assert generate(client, messages=messages).status_code == 200
    assert (worker.turns[0].request.chat, worker.turns[0].request.prompt) == (None, "Say hello")


@pytest.mark.parametrize(
    ("messages", "field"), [([], "messages"), ([{"role": "user"}], "messages.0.content"), (None, "prompt")]
)
def test_messages_that_cannot_be_are_named(client: FlaskClient, messages: Any, field: str) -> None:
    response = client.post("/generate", json={"messages": messages})
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])


def test_null_means_not_given(client: FlaskClient, worker: ScriptedWorker) -> None:
    names = ("params", "priority", "details", "stream", "on_disconnect", "timeout", "expires_in", "ttl")
    nothing: dict[str, Any] = dict.fromkeys(names)
    assert generate(client, **nothing).json == "Hello world"


def test_prompts_of_spaces_and_of_nul_and_of_every_script_are_prompts(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    prompts = [" ", "\n", "a\0b", "日本語 😀", "\u2028"]
    assert [generate(client, prompt=prompt).status_code for prompt in prompts] == [200] * len(prompts)
    assert [turn.request.prompt for turn in worker.turns] == prompts


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_json_is_read_whatever_the_content_type(
    client: FlaskClient, worker: ScriptedWorker, content_type: str | None
) -> None:
    response = client.post("/generate", data='{"prompt": "x"}', content_type=content_type)
    assert response.json == "Hello world"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"prompt=x",
        b"[]",
        b'"text"',
        b"3",
        b"null",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b"[" * 90_000,
        b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/agenerate", "/embeddings"])
def test_a_body_that_is_no_json_object_is_malformed(client: FlaskClient, path: str, body: bytes) -> None:
    response = client.post(path, data=body)
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    problem = response.get_json()
    assert (problem["type"], problem["code"]) == ("urn:llm-api:error:malformed_request", "malformed_request")
    assert "Content-Type: application/json" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x", "params": []}, "params"),
        ({"prompt": "x", "params": {"temperature": float("nan")}}, "params.temperature"),
        ({"prompt": "x", "params": {"temperature": float("inf")}}, "params.temperature"),
        ({"prompt": "x", "params": {"top_p": 2}}, "params.top_p"),
        ({"prompt": "x", "params": {"stop": ["a", ""]}}, "params.stop.1"),
        ({"prompt": "x", "params": {"temprature": 1}}, "params.temprature"),
        ({"prompt": "x", "params": {"\ud800": 1}}, "params.\\ud800"),
        ({"prompt": "x", "priority": "urgent"}, "priority"),
        ({"prompt": "x", "priority": []}, "priority"),
        ({"prompt": "x", "timeout": 0}, "timeout"),
        ({"prompt": "x", "timeout": "5"}, "timeout"),
        ({"prompt": "x", "timeout": float("inf")}, "timeout"),
        ({"prompt": "x", "details": "yes"}, "details"),
        ({"prompt": "x", "stream": 1}, "stream"),
        ({"prompt": "x", "on_disconnect": "die"}, "on_disconnect"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/agenerate"])
def test_a_wrong_field_is_named(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any], field: str
) -> None:
    response = client.post(path, data=json.dumps(body))
    problem = response.get_json()
    assert (response.status_code, response.mimetype, list(problem["errors"])) == (
        422,
        "application/problem+json",
        [field],
    )
    assert (problem["code"], problem["status"], problem["title"]) == ("invalid_request", 422, "Invalid request")
    assert field in problem["detail"]
    assert worker.turns == []


def test_a_thousand_wrong_fields_do_not_make_a_thousand_errors(client: FlaskClient) -> None:
    response = generate(client, params={f"unknown-{'x' * 500}-{number}": 1 for number in range(100)})
    assert response.status_code == 422
    assert len(response.get_json()["errors"]) <= 16
    assert len(response.get_data()) < 20_000


def test_a_body_over_the_limit_is_refused(client: FlaskClient) -> None:
    response = generate(client, prompt="x" * 100_000)
    assert (response.status_code, response.get_json()["code"]) == (413, "body_too_large")


def test_without_a_worker_the_service_is_unavailable(client: FlaskClient) -> None:
    response = generate(client)
    assert (response.status_code, response.get_json()["code"]) == (503, "no_worker")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "x"}),
        ("/agenerate", {"prompt": "x"}),
        ("/agenerate", {"prompt": "x", "stream": True}),
        ("/embeddings", {"text": "x"}),
        ("/tokenize", {"text": "x"}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/responses", {"input": "x", "background": True}),
    ],
)
def test_the_reason_of_a_failed_worker_comes_at_once(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    worker.announce(WorkerState.FAILED, detail="there is no such file")
    withdraw(worker.redis, worker.model)
    response = client.post(path, json=body)
    error = response.get_json()
    detail = error["error"]["message"] if path.startswith("/v1") else error["detail"]
    reason = "the worker failed (there is no such file); correct that, then start it again"
    assert (response.status_code, detail) == (503, f"no worker serves {worker.model!r}: {reason}")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("prompt_too_long", 422),
        ("invalid_grammar", 422),
        ("unsupported_parameter", 422),
        ("engine_error", 500),
        ("worker_lost", 500),
        ("timeout", 504),
        ("expired", 504),
        ("never_heard_of", 500),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream"])
def test_an_error_of_the_worker_is_a_proper_http_error(
    client: FlaskClient, worker: ScriptedWorker, path: str, code: str, status: int
) -> None:
    worker.play = fails_with(code, "too long by 3", {"prompt": ["too long by 3"]})
    response = client.post(path, json={"prompt": "x", "stream": path.endswith("stream")})
    problem = response.get_json()
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert (problem["status"], problem["detail"]) == (status, "too long by 3")
    assert problem["errors"] == {"prompt": ["too long by 3"]}


def test_the_answer_has_the_location_of_its_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = generate(client)
    job = client.get(response.headers["Location"]).get_json()
    assert (job["id"], job["output"]["text"]) == (worker.turns[0].claim.job_id, "Hello world")


@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream"])
def test_an_error_has_the_location_of_the_job_that_failed(
    client: FlaskClient, worker: ScriptedWorker, path: str
) -> None:
    worker.play = fails_with("engine_error")
    response = client.post(path, json={"prompt": "x", "stream": path.endswith("stream")})
    assert client.get(response.headers["Location"]).get_json()["error"]["code"] == "engine_error"


def test_an_answer_without_a_job_has_no_location(client: FlaskClient) -> None:
    for response in (generate(client), generate(client, prompt=""), client.get("/jobs")):
        assert "Location" not in response.headers


def test_a_job_that_is_canceled_is_a_conflict_for_the_client_that_waits(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.play = Turn.wait_for_cancel
    canceler = threading.Thread(target=lambda: cancel_first(client, worker), daemon=True)
    canceler.start()
    response = generate(client)
    canceler.join(scaled(5))
    assert (response.status_code, response.get_json()["code"]) == (409, "job_canceled")


def cancel_first(client: FlaskClient, worker: ScriptedWorker) -> None:
    while not worker.turns:
        time.sleep(0.01)
    job_id = worker.turns[0].claim.job_id
    assert client.application.test_client().post(f"/jobs/{job_id}/cancel").status_code in (200, 202)


def test_a_wait_that_is_over_has_the_location_of_the_job(
    client: FlaskClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_jobs, "WAIT_GRACE_SECONDS", -0.8)
    done = threading.Event()
    worker.play = play_of(done, "late", Turn.succeed)
    response = generate(client, timeout=1)
    done.set()
    assert (response.status_code, response.get_json()["code"]) == (504, "wait_timeout")
    assert response.get_json()["detail"].endswith(f"read it at {response.headers['Location']}")
    job = client.get(f"{response.headers['Location']}?wait=5").get_json()
    assert (job["status"], job["output"]["text"]) == ("succeeded", "late")


def test_a_missing_redis_is_reported_without_its_address(make_app: MakeApp, config: Config, redis_url: str) -> None:
    app = make_app(replace(config, redis_url="redis://:secret@127.0.0.1:1/0"))
    response = generate(app.test_client())
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "secret" not in response.text and "127.0.0.1" not in response.text


def test_more_waiters_than_threads_are_refused_and_leave_no_job(
    make_app: MakeApp, config: Config, worker: ScriptedWorker
) -> None:
    app = make_app(replace(config, server=replace(config.server, threads=1)))
    entered = threading.Event()
    worker.play = play_of(lambda turn: entered.set(), Turn.wait_for_cancel)
    waiting = threading.Thread(target=lambda: generate(app.test_client()), daemon=True)
    waiting.start()
    assert entered.wait(scaled(5))
    response = generate(app.test_client())
    assert (response.status_code, response.get_json()["code"]) == (503, "too_many_waiters")
    jobs = app.test_client().get("/jobs").get_json()["data"]
    assert len(jobs) == 1
    app.test_client().delete(jobs[0]["urls"]["self"])
    waiting.join(scaled(5))


def test_agenerate_answers_with_the_accepted_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.stop()
    response = client.post("/agenerate", json={"prompt": "Say hello", "priority": "low"})
    job = response.get_json()
    assert (response.status_code, response.headers["Location"]) == (202, f"/jobs/{job['id']}")
    assert (job["status"], job["queue_position"], job["priority"]) == ("queued", 1, "low")


def test_the_job_of_an_agenerate_runs_without_its_client(client: FlaskClient, worker: ScriptedWorker) -> None:
    location = client.post("/agenerate", json={"prompt": "Say hello"}).headers["Location"]
    job = client.get(f"{location}?wait=10").get_json()
    assert (job["status"], job["output"]["text"]) == (Status.SUCCEEDED, "Hello world")


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({"params": {"num_predict": 5}}, "params.num_predict"),
        ({"params": {"max_tokens": 5}}, "params.max_tokens"),
        ({"num_predict": 5}, "num_predict"),
        ({}, "params.max_tokens"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/agenerate?stream"])
def test_an_error_of_the_worker_uses_the_name_that_the_client_has_sent(
    client: FlaskClient, worker: ScriptedWorker, path: str, sent: dict[str, Any], named: str
) -> None:
    worker.play = lambda turn: turn.fail("unsupported_parameter", "no", {"params.max_tokens": ["no"]})
    stream = path.endswith("stream")
    response = client.post(path, json={"prompt": "x", "stream": stream, **sent})
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [named])
