import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.access import OPEN_PATHS
from app.jobs.worker_registry import WorkerState
from tests.app.api.scripted_worker import ScriptedWorker

KEY = {"Authorization": "Bearer first-key"}


@pytest.fixture
def locked(locked_app: Flask, worker: ScriptedWorker) -> FlaskClient:
    return locked_app.test_client()


def closed_calls(app: Flask) -> list[tuple[str, str]]:
    """Return every route but the open ones, with static files, and paths that do not exist."""
    calls = [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
        if rule.rule not in OPEN_PATHS and not rule.rule.startswith(("/docs/", "/static/", "/web/"))
    ]
    hostile = ["/nowhere", "/healthz/", "/healthz//", "/jobs/", "/static", "/docs.js"]
    return [*calls, *(("GET", path) for path in hostile)]


def test_every_route_but_the_open_ones_wants_a_key(locked: FlaskClient) -> None:
    calls = closed_calls(locked.application)
    assert ("POST", "/generate") in calls and ("GET", "/v1/models") in calls
    answers = {call: locked.open(call[1], method=call[0]) for call in calls}
    assert {call: answer.status_code for call, answer in answers.items()} == dict.fromkeys(calls, 401)
    assert all(answer.headers["WWW-Authenticate"].startswith("Bearer") for answer in answers.values())


def test_the_open_routes_answer_without_a_key(locked: FlaskClient, worker: ScriptedWorker) -> None:
    for path in OPEN_PATHS:
        with locked.get(path) as response:
            assert response.status_code == 200
    assert locked.get("/readyz").get_json() == {"status": "ready"}
    assert locked.get("/readyz", headers=KEY).get_json()["model"] == "scripted"
    worker.announce(WorkerState.LOADING, detail="secret.gguf")
    told = locked.get("/readyz")
    assert (told.status_code, "secret.gguf" in told.text) == (503, False)
    assert "secret.gguf" in locked.get("/readyz", headers=KEY).text


@pytest.mark.parametrize(
    "path", ["/docs/../jobs", "/docs//../jobs", "/static/../../jobs", "/web/../jobs", "/docs/%2e%2e/jobs", "/docs/x"]
)
def test_below_the_open_folders_there_is_nothing_but_their_files(locked: FlaskClient, path: str) -> None:
    assert locked.get(path).status_code in (308, 404)


def test_a_browser_without_a_key_sees_the_reference_and_gives_it_one_there(locked: FlaskClient) -> None:
    page = locked.get("/docs")
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        response = locked.get(f"/{asset}")
        assert response.status_code == 200
        response.close()
    document = locked.get("/openapi.json").get_json()
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"


@pytest.mark.parametrize("key", ["first-key", "second-key"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_any_of_the_keys_opens(locked: FlaskClient, key: str, scheme: str) -> None:
    response = locked.post("/generate", json={"prompt": "x"}, headers={"Authorization": f"{scheme} {key}"})
    assert response.get_json() == "Hello world"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "first-key",
        "Bearer",
        "Bearer ",
        "Bearer first-kez",
        "Basic first-key",
        "Bearer first-key first-key",
        "Bearer \xff",
    ],
)
def test_what_is_no_key_is_refused(locked: FlaskClient, header: str) -> None:
    response = locked.get("/jobs", headers={"Authorization": header})
    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")
    assert "Authorization: Bearer" in response.get_json()["detail"]
    assert "first-key" not in response.text


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({}, "this server wants an API key; send the header Authorization: Bearer <key>"),
        ({"api-key": ""}, "this server wants an API key; send"),
        ({"Authorization": "Bearer sk-wrong"}, "Incorrect API key provided: the key in Authorization: Bearer <key> is"),
        ({"Authorization": "Bearer sk-wrong", "api-key": "first-key"}, "Incorrect API key provided"),
        ({"Authorization": "Basic first-key"}, "another form than Authorization: Bearer <key>"),
        ({"Authorization": "first-key"}, "another form than Authorization: Bearer <key>"),
        ({"Authorization": "Bearer"}, "another form than Authorization: Bearer <key>"),
        ({"Api-Key": "first-key"}, "the header api-key is not read; send the header Authorization: Bearer <key>"),
        ({"X-API-Key": "first-key"}, "the header x-api-key is not read; send"),
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/v1/models"])
def test_a_refusal_says_what_is_wrong_with_the_key(
    locked: FlaskClient, path: str, headers: dict[str, str], fault: str
) -> None:
    response = locked.get(path, headers=headers)
    answer = response.get_json()
    error = answer.get("error", answer)
    code, text = error["code"], error.get("message") or error["detail"]
    assert (response.status_code, code) == (401, "invalid_api_key" if path.startswith("/v1") else "unauthorized")
    assert fault in text
    assert "sk-wrong" not in text and "first-key" not in text


def test_openais_routes_refuse_in_openais_shape(locked: FlaskClient) -> None:
    error = locked.get("/v1/models").get_json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("invalid_api_key", "invalid_request_error", None)


def test_no_key_is_stored_in_redis(locked: FlaskClient, worker: ScriptedWorker) -> None:
    locked.post("/generate", json={"prompt": "x"}, headers=KEY)
    job_id = worker.turns[0].claim.job_id
    owner = worker.store.read(job_id).owner
    assert owner.startswith("key-") and "first" not in owner


def test_without_configured_keys_no_request_needs_one(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert client.post("/generate", json={"prompt": "x"}).status_code == 200
    assert worker.store.read(worker.turns[0].claim.job_id).owner == "anonymous"


def test_the_document_says_where_a_key_is_needed_and_where_it_may_be(locked: FlaskClient, client: FlaskClient) -> None:
    with_keys, without = locked.get("/openapi.json").get_json(), client.get("/openapi.json").get_json()
    assert with_keys["paths"]["/generate"]["post"]["security"] == [{"api_key": []}]
    assert without["paths"]["/generate"]["post"]["security"] == [{"api_key": []}, {}], "keys may be made at any time"
    for document in (with_keys, without):
        assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
        assert {"401", "403"} <= set(document["paths"]["/generate"]["post"]["responses"])
        assert "security" not in document["paths"]["/check"]["get"]
