"""What belongs to one key, asked for with another: every route of the URL map, each with every id that it takes."""

import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.access.api_key import DEFAULT_SCOPES, ApiKey, Scope
from app.access.key_store import KeyStore
from app.api.access import OPEN_PATHS
from app.config.settings import Config
from app.jobs.redis_client import RedisClient
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker

OPEN_FOLDERS = ("/docs/", "/static/", "/web/")
NOT_OWNED = {"model_id", "name", "filename"}
"""Parameters of paths that are no ids of what a key owns."""
RETRY = "/jobs/<job_id>/retry"
CHANGE = "/jobs/<job_id>"
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /admin/keys/<key_id>": {"weight": 2.0},
    f"PATCH {CHANGE}": {"priority": "low"},
}


@dataclass
class Tenant:
    key: ApiKey
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


@pytest.fixture(scope="module")
def open_app(make_app: MakeApp, config: Config) -> Flask:
    """An application whose configuration has no keys."""
    return make_app(config)


@pytest.fixture
def keys(redis_client: RedisClient, open_app: Flask, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    monkeypatch.setattr("app.access.authentication.CACHED_SECONDS", 0.0)
    return KeyStore(redis_client)


@pytest.fixture
def http(open_app: Flask, keys: KeyStore, worker: ScriptedWorker) -> Iterator[FlaskClient]:
    yield open_app.test_client()


def tenant(keys: KeyStore, name: str, **more: Any) -> Tenant:
    return Tenant(*keys.create(ApiKey(id="", digest="", name=name, **more)))


def calls(app: Flask) -> list[tuple[str, str]]:
    """Return every route but the open ones, as method and rule."""
    return [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
        if rule.rule not in OPEN_PATHS and not rule.rule.startswith(OPEN_FOLDERS)
    ]


def owned_calls(app: Flask) -> list[tuple[str, str, str]]:
    """Return every route with an id, as method, rule and the name of the id."""
    found = []
    for method, path in calls(app):
        (rule,) = [rule for rule in app.url_map.iter_rules() if rule.rule == path and method in (rule.methods or ())]
        found += [(method, path, name) for name in rule.arguments - NOT_OWNED]
    return found


def make_things(http: FlaskClient, owner: Tenant) -> dict[str, str]:
    """Make one of each thing that has an id, and return the ids by the names of the map's parameters."""
    headers = owner.headers
    job = http.post("/agenerate", json={"prompt": "x"}, headers=headers).get_json()["id"]
    assert http.get(f"/jobs/{job}?wait=10", headers=headers).get_json()["status"] == "succeeded"
    response = http.post("/v1/responses", json={"input": "x"}, headers=headers).get_json()["id"]
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}
    upload = {"purpose": "batch", "file": (io.BytesIO(json.dumps(line).encode()), "x.jsonl")}
    file = http.post("/v1/files", data=upload, headers=headers).get_json()["id"]
    batch = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch_id = http.post("/v1/batches", json=batch, headers=headers).get_json()["id"]
    return {"job_id": job, "response_id": response, "file_id": file, "batch_id": batch_id, "key_id": owner.key.id}


def send(http: FlaskClient, method: str, rule: str, ids: dict[str, str], headers: dict[str, str]) -> Any:
    path = rule.replace("string(minlength=13):", "").replace("path:", "")
    for name, value in ids.items():
        path = path.replace(f"<{name}>", value)
    body = BODIES.get(f"{method} {rule}")
    return http.open(path, method=method, headers=headers, json=body)


def test_the_sweep_knows_every_id_of_the_map_and_makes_one(http: FlaskClient, keys: KeyStore) -> None:
    things = make_things(http, tenant(keys, "one"))
    names = {name for _, _, name in owned_calls(http.application)}
    assert names == set(things), "a new route: make what it shows in make_things, or add its parameter to NOT_OWNED"
    assert len(owned_calls(http.application)) >= 18


def test_no_route_shows_or_changes_what_belongs_to_another_key(http: FlaskClient, keys: KeyStore) -> None:
    owner, other = tenant(keys, "owner"), tenant(keys, "other")
    things = make_things(http, owner)
    unknown = {name: str(uuid.uuid4()) for name in things}
    for method, rule, name in owned_calls(http.application):
        refused = send(http, method, rule, things, other.headers)
        if name == "key_id":
            assert (refused.status_code, refused.get_json()["code"]) == (403, "missing_scope"), (method, rule)
            continue
        assert refused.status_code == 404, (method, rule)
        missing = send(http, method, rule, unknown, other.headers)
        shown, expected = (
            answer.text.replace(ids[name], "ID") for answer, ids in ((refused, things), (missing, unknown))
        )
        assert shown == expected, f"{method} {rule} tells an id of another key from one that never was"
    gets = [call for call in owned_calls(http.application) if call[0] == "GET" and call[2] != "key_id"]
    seen = {(method, rule): send(http, method, rule, things, owner.headers).status_code for method, rule, _ in gets}
    assert set(seen.values()) <= {200, 204}, "nothing was changed"


def test_an_admin_sees_and_changes_what_belongs_to_every_key(http: FlaskClient, keys: KeyStore) -> None:
    owner, admin = tenant(keys, "owner"), tenant(keys, "admin", scopes=frozenset({Scope.ADMIN}))
    things = make_things(http, owner)
    order = sorted(owned_calls(http.application), key=lambda call: (call[0] == "DELETE", "batch" not in call[1]))
    for method, rule, _ in order:
        if rule == RETRY:
            continue
        answer = send(http, method, rule, things, admin.headers)
        if (method, rule) == ("PATCH", CHANGE):
            assert (answer.status_code, "the job is succeeded" in answer.text) == (409, True)
            continue
        assert answer.status_code < 300 or (method, rule) == ("DELETE", "/v1/files/<file_id>"), (method, rule)
    assert send(http, "POST", RETRY, things, admin.headers).status_code == 404, "it makes nothing of others' requests"
    # no driver runs here, so the batch never ends
    assert "a batch reads this file" in send(http, "DELETE", "/v1/files/<file_id>", things, admin.headers).text


def test_a_revoked_key_opens_no_route(http: FlaskClient, keys: KeyStore) -> None:
    revoked = tenant(keys, "revoked", scopes=frozenset(Scope))
    things = make_things(http, revoked)
    keys.revoke(revoked.key.id)
    closed = calls(http.application)
    answers = {call: send(http, *call, things, revoked.headers).status_code for call in closed}
    assert answers == dict.fromkeys(closed, 401)
    assert {call: send(http, *call, things, {}).status_code for call in closed} == dict.fromkeys(closed, 401)


def test_every_route_declares_a_scope_and_a_key_without_it_is_refused_by_its_name(
    http: FlaskClient, keys: KeyStore
) -> None:
    holders = [tenant(keys, scope.value, scopes=frozenset({scope})) for scope in Scope if scope != Scope.ADMIN]
    needed: dict[tuple[str, str], set[str]] = {}
    ids = dict.fromkeys(make_things(http, tenant(keys, "maker")), "0" * 32)
    for call in calls(http.application):
        for holder in holders:
            answer = send(http, *call, ids, holder.headers)
            if answer.status_code == 403:
                assert "has no scope '" in answer.text and holder.key.name in answer.text
                needed.setdefault(call, set()).add(answer.text.split("has no scope '")[1].split("'")[0])
            else:
                needed.setdefault(call, set()).add("")
    lacking = {call: found - {""} for call, found in needed.items()}
    assert all(len(found) <= 1 for found in lacking.values()), "a route needs one scope"
    scopes = {call: next(iter(found), None) for call, found in lacking.items()}
    assert scopes["POST", "/v1/chat/completions"] == "inference" and scopes["GET", "/jobs"] == "jobs"
    assert scopes["POST", "/v1/files"] == "batches" and scopes["POST", "/admin/keys"] == "admin"
    assert {call for call, scope in scopes.items() if scope is None} == {
        ("GET", "/live/key"),
        ("GET", "/live/workers"),
        ("GET", "/usage"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/<path:model_id>"),
    }


def test_bodies_cannot_name_what_belongs_to_another_key(http: FlaskClient, keys: KeyStore) -> None:
    owner, other, admin = tenant(keys, "owner"), tenant(keys, "other"), tenant(keys, "admin", scopes=frozenset(Scope))
    things = make_things(http, owner)
    batch = {"input_file_id": things["file_id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    answer = http.get(f"/v1/responses/{things['response_id']}", headers=owner.headers).get_json()
    reference = {"type": "item_reference", "id": answer["output"][0]["id"]}
    for path, body, param in (
        ("/v1/batches", batch, "input_file_id"),
        ("/v1/responses", {"input": "x", "previous_response_id": things["response_id"]}, "previous_response_id"),
        ("/v1/responses", {"input": [reference]}, "input.0"),
    ):
        for stranger in (other, admin):  # an admin reads what belongs to others, and makes nothing of it
            refused = http.post(path, json=body, headers=stranger.headers)
            assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, param)
    same = {"Idempotency-Key": "1"}
    first, second = (
        http.post("/agenerate", json={"prompt": "x"}, headers=one.headers | same).get_json()["id"]
        for one in (owner, other)
    )
    assert first != second


LISTS = ("/jobs", "/v1/files", "/v1/batches")


def listed(http: FlaskClient, path: str, of: Tenant, owner: str | None = None) -> list[str]:
    answer = http.get(path, headers=of.headers, query_string={} if owner is None else {"owner": owner})
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.get_json()["data"]]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_the_callers_own_and_to_an_admin_whose_it_names(
    http: FlaskClient, keys: KeyStore, path: str
) -> None:
    owner, other = tenant(keys, "owner"), tenant(keys, "other")
    admin = tenant(keys, "admin", scopes=frozenset({Scope.ADMIN}))
    make_things(http, owner)
    own = listed(http, path, owner)
    assert own and listed(http, path, other) == listed(http, path, admin) == []
    assert listed(http, path, owner, "owner") == listed(http, path, owner, owner.key.id) == own
    assert listed(http, path, admin, "owner") == listed(http, path, admin, owner.key.id) == own
    assert listed(http, path, admin, "anonymous") == []
    for wanted in ("owner", owner.key.id, "anonymous", "nobody"):
        refused = http.get(path, headers=other.headers, query_string={"owner": wanted})
        assert refused.status_code == 403 and "scope admin" in refused.text
    unknown = http.get(path, headers=admin.headers, query_string={"owner": "nobody"})
    assert unknown.status_code == 404 and "no API key has the name or id 'nobody'" in unknown.text
    keys.revoke(owner.key.id)
    assert listed(http, path, admin, owner.key.id) == own, "what a revoked key has left"


def test_an_admin_can_say_whose_id_it_expects(http: FlaskClient, keys: KeyStore) -> None:
    owner, admin = tenant(keys, "owner"), tenant(keys, "admin", scopes=frozenset({Scope.ADMIN}))
    tenant(keys, "other")
    path = f"/jobs/{make_things(http, owner)['job_id']}"
    statuses = [http.get(f"{path}?owner={who}", headers=admin.headers).status_code for who in ("owner", "other")]
    assert statuses == [200, 404]


def test_what_was_made_without_keys_belongs_to_no_key_afterwards(http: FlaskClient, keys: KeyStore) -> None:
    job = http.post("/agenerate", json={"prompt": "x"}).get_json()["id"]
    assert http.get(f"/jobs/{job}").status_code == 200
    other, admin = tenant(keys, "other"), tenant(keys, "admin", scopes=frozenset({Scope.ADMIN}))
    assert http.get(f"/jobs/{job}").status_code == 401
    assert http.get(f"/jobs/{job}", headers=other.headers).status_code == 404
    assert listed(http, "/jobs", admin, "anonymous") == [job]


def test_without_keys_nobody_is_an_admin(http: FlaskClient) -> None:
    refused = http.post("/admin/keys", json={"name": "mine", "scopes": ["admin"]})
    assert (refused.status_code, "llm-api keys create NAME --scope admin" in refused.text) == (401, True)
    assert http.get("/jobs?owner=key-" + "0" * 24).status_code == 403
    assert http.get("/jobs?owner=anonymous").status_code == 200


def test_a_key_may_ask_for_the_models_that_it_names_alone(http: FlaskClient, keys: KeyStore) -> None:
    served, none = tenant(keys, "served", models=(MODEL[:3] + "*",)), tenant(keys, "none", models=("another",))
    chat = {"messages": [{"role": "user", "content": "x"}]}
    for path, body in (
        ("/generate", {"prompt": "x"}),
        ("/embeddings", {"text": "x"}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "model": "default"}),
        ("/v1/completions", {"prompt": "x", "model": MODEL}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/responses/input_tokens", {"input": "x"}),
        ("/tokenize", {"text": "x"}),
        ("/detokenize", {"tokens": [1]}),
    ):
        refused = http.post(path, json=body, headers=none.headers)
        assert refused.status_code == 404 and "which may ask for another" in refused.text, path
        assert "model_not_found" in refused.text
    assert http.post("/generate", json={"prompt": "x"}, headers=served.headers).status_code == 200
    names = {one: [m["id"] for m in http.get("/v1/models", headers=of.headers).get_json()["data"]]
             for one, of in (("served", served), ("none", none))}  # fmt: skip
    assert names == {"served": [MODEL], "none": []}
    assert http.get(f"/v1/models/{MODEL}", headers=none.headers).status_code == 404


def test_a_key_gets_the_priority_that_it_may_ask_for(http: FlaskClient, keys: KeyStore, worker: ScriptedWorker) -> None:
    low, high = tenant(keys, "low", max_priority="low"), tenant(keys, "high")
    refused = http.post("/generate", json={"prompt": "x", "priority": "normal"}, headers=low.headers)
    answer = refused.get_json()
    assert (refused.status_code, answer["code"]) == (403, "forbidden")
    assert "may ask for low at most, not normal" in answer["errors"]["priority"][0]
    under_v1 = http.post("/v1/completions", json={"prompt": "x", "priority": "high"}, headers=low.headers)
    assert (under_v1.status_code, under_v1.get_json()["error"]["param"]) == (403, "priority")
    made = [
        http.post("/agenerate", json={"prompt": "x", **sent}, headers=of.headers).get_json()["priority"]
        for of, sent in ((low, {}), (low, {"priority": "low"}), (high, {}), (high, {"priority": "high"}))
    ]
    assert made == ["low", "low", "normal", "high"]


def test_a_waiting_job_gets_no_priority_that_the_key_may_not_ask_for(
    http: FlaskClient, keys: KeyStore, worker: ScriptedWorker
) -> None:
    worker.stop()
    one, admin = tenant(keys, "one", max_priority="normal"), tenant(keys, "admin", scopes=frozenset({Scope.ADMIN}))
    path = f"/jobs/{http.post('/agenerate', json={'prompt': 'x'}, headers=one.headers).get_json()['id']}"
    assert http.patch(path, json={"priority": "low"}, headers=one.headers).get_json()["priority"] == "low"
    refused = http.patch(path, json={"priority": "high"}, headers=one.headers)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
    assert "may ask for normal at most, not high" in refused.get_json()["errors"]["priority"][0]
    assert http.get(path, headers=one.headers).get_json()["priority"] == "low"
    raised = http.patch(f"{path}?owner=one", json={"priority": "high"}, headers=admin.headers)
    assert (raised.status_code, raised.get_json()["priority"]) == (200, "high")


def principal_of_last_job(worker: ScriptedWorker) -> dict[str, str]:
    record: dict[str, str] = dict(worker.redis.hgetall(f"llm:job:{worker.turns[-1].claim.job_id}"))
    return record


def test_a_job_keeps_the_key_its_group_and_the_label_of_the_request(
    http: FlaskClient, keys: KeyStore, worker: ScriptedWorker
) -> None:
    team = tenant(keys, "app", group="team", weight=2.0)
    project = {"OpenAI-Project": "proj\u00e9" + "x" * 100}
    for headers, body, label in (
        ({}, {"prompt": "x"}, ""),
        ({}, {"prompt": "x", "user": " u\n1 "}, "u1"),
        (project, {"prompt": "x", "user": "u1"}, ("proj\u00e9" + "x" * 100)[:64]),
    ):
        assert http.post("/v1/completions", json=body, headers=team.headers | headers).status_code == 200
        record = principal_of_last_job(worker)
        assert (record["owner"], record["tenant"], record["key_name"]) == (team.key.id, "team", "app")
        assert (float(record["weight"]), record["label"]) == (2.0, label)
    http.post("/generate", json={"prompt": "x"}, headers=team.headers | {"OpenAI-Project": "p"})
    assert principal_of_last_job(worker)["label"] == "p"


def test_default_scopes_open_what_the_old_keys_opened(http: FlaskClient, keys: KeyStore) -> None:
    one = tenant(keys, "one")
    assert one.key.scopes == DEFAULT_SCOPES
    make_things(http, one)


def test_a_job_is_run_again_as_the_key_may_ask_for_it_now(http: FlaskClient, keys: KeyStore) -> None:
    one = tenant(keys, "one")
    job = http.post("/agenerate", json={"prompt": "x", "priority": "high"}, headers=one.headers).get_json()["id"]
    http.get(f"/jobs/{job}?wait=10", headers=one.headers)
    assert http.post(f"/jobs/{job}/retry", headers=one.headers).status_code == 202
    keys.update(one.key.id, {"max_priority": "normal"})
    refused = http.post(f"/jobs/{job}/retry", headers=one.headers)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
    keys.update(one.key.id, {"max_priority": "high", "models": ("another",)})
    refused = http.post(f"/jobs/{job}/retry", headers=one.headers)
    assert (refused.status_code, refused.get_json()["code"]) == (404, "model_not_found")
