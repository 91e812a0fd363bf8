from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.access.api_key import Scope
from app.config.settings import AuthConfig, Config
from tests.app.api.conftest import MODEL, MakeApp
from tests.valkey import Valkey

ROOT = {"Authorization": "Bearer root"}
CONFIGURED = "key-4813494d137e1631bba301d5"  # of the digest of "root"


@pytest.fixture(scope="module")
def admin_app(make_app: MakeApp, valkey: Valkey) -> Flask:
    return make_app(Config(model_name=MODEL, redis_url=valkey.url, auth=AuthConfig(admin_keys=("root",))))


@pytest.fixture
def http(admin_app: Flask, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr("app.access.authentication.CACHED_SECONDS", 0.0)
    client = admin_app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = ROOT["Authorization"]
    return client


def create(http: FlaskClient, name: str = "one", **more: Any) -> dict[str, Any]:
    answer = http.post("/admin/keys", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.get_json()
    return made


def opens(http: FlaskClient, secret: str, path: str = "/jobs") -> int:
    return http.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_new_key_opens_at_once_and_its_secret_is_shown_once(http: FlaskClient) -> None:
    made = create(http)
    secret = made.pop("key")
    assert opens(http, secret) == 200
    assert http.get(f"/admin/keys/{made['id']}").get_json() | {"last_used_at": None} == made
    assert secret not in http.get("/admin/keys").text + http.get("/admin/keys/one").text
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "object": "api_key",
        "name": "one",
        "group": None,
        "scopes": ["inference", "jobs", "batches"],
        "models": [],
        "weight": 1.0,
        "max_priority": "high",
        "limits": dict.fromkeys(made["limits"]),
        "created_at": "",
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "source": "redis",
    }


def test_a_key_is_what_its_fields_say(http: FlaskClient) -> None:
    fields: dict[str, Any] = {
        "group": "team",
        "scopes": ["admin", "jobs"],
        "models": ["small", "adapter-*"],
        "weight": 2.5,
        "max_priority": "normal",
        "limits": {"requests_per_minute": 60, "tokens_per_month": 10**9},
        "expires_at": "2990-01-31T12:00:00+02:00",
    }
    made = create(http, **fields)
    limits = made["limits"]
    assert (limits["requests_per_minute"], limits["tokens_per_month"], limits["max_tokens"]) == (60, 10**9, None)
    shown = {name: made[name] for name in fields if name != "limits"}
    expected = {**fields, "scopes": ["jobs", "admin"], "expires_at": "2990-01-31T10:00:00.000000Z"}
    assert shown == {name: expected[name] for name in shown}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "name", "Missing data"),
        ({"name": "two words"}, "name", "Must be 1 to 64 letters, digits"),
        ({"name": "key-" + "0" * 24}, "name", "Must not look like an id of a key"),
        ({"name": "a", "group": "anonymous"}, "group", "Must not look like an id"),
        ({"name": "a", "scopes": ["root"]}, "scopes.0", "inference, jobs, batches, admin"),
        ({"name": "a", "scopes": []}, "scopes", "Length must be between 1 and 16."),
        ({"name": "a", "weight": 0}, "weight", "0.01"),
        ({"name": "a", "weight": "2"}, "weight", "Must be a number."),
        ({"name": "a", "max_priority": "urgent"}, "max_priority", "high, normal, low"),
        ({"name": "a", "limits": {"max_tokens": 0}}, "limits.max_tokens", "1"),
        ({"name": "a", "limits": {"max_token": 1}}, "limits.max_token", "Did you mean 'max_tokens'?"),
        ({"name": "a", "expires_at": "2990-01-31"}, "expires_at", "with its time zone"),
        ({"name": "a", "expires_at": 5}, "expires_at", "Must be a string"),
        ({"name": "a", "expires_at": "2020-01-31T00:00:00Z"}, "expires_at", "in the future"),
        ({"name": "a", "key": "mine"}, "key", "Unknown parameter"),
    ],
)
def test_a_wrong_field_is_named(http: FlaskClient, body: dict[str, Any], field: str, message: str) -> None:
    answer = http.post("/admin/keys", json=body)
    assert answer.status_code == 422, answer.text
    assert message in answer.get_json()["errors"][field][0]


def test_two_keys_have_two_names(http: FlaskClient) -> None:
    create(http)
    other = create(http, "two")
    for answer in (
        http.post("/admin/keys", json={"name": "one"}),
        http.patch(f"/admin/keys/{other['id']}", json={"name": "one"}),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")


def test_an_update_changes_what_it_names_and_null_is_the_default(http: FlaskClient) -> None:
    create(http, group="team", models=["m"], weight=3, limits={"max_tokens": 5, "waiting_jobs": 7})
    changed = http.patch("/admin/keys/one", json={"limits": {"max_tokens": None, "tokens_per_day": 9}, "weight": None})
    limits = changed.get_json()["limits"]
    assert {name: value for name, value in limits.items() if value} == {"waiting_jobs": 7, "tokens_per_day": 9}
    assert (changed.get_json()["weight"], changed.get_json()["group"]) == (1.0, "team")
    changed = http.patch("/admin/keys/one", json={"group": None, "models": None, "limits": None, "scopes": ["jobs"]})
    key = changed.get_json()
    assert (key["group"], key["models"], set(key["limits"].values()), key["scopes"]) == (None, [], {None}, ["jobs"])
    assert http.patch("/admin/keys/one", json={}).get_json()["scopes"] == ["jobs"]
    renamed = http.patch("/admin/keys/one", json={"name": "new", "expires_at": "2990-01-31T00:00:00Z"}).get_json()
    assert (renamed["name"], renamed["expires_at"][:10]) == ("new", "2990-01-31")
    assert http.patch("/admin/keys/new", json={"expires_at": None}).get_json()["expires_at"] is None
    assert http.get("/admin/keys/one").status_code == 404


def test_a_change_of_scopes_counts(http: FlaskClient) -> None:
    secret = create(http)["key"]
    assert opens(http, secret, "/v1/files") == 200
    http.patch("/admin/keys/one", json={"scopes": ["jobs"]})
    assert (opens(http, secret, "/v1/files"), opens(http, secret)) == (403, 200)


def test_a_rotation_replaces_the_secret_after_the_grace_time(http: FlaskClient) -> None:
    made = create(http)
    rotated = http.post("/admin/keys/one/rotate?grace_seconds=100").get_json()
    assert (rotated["id"], opens(http, made["key"]), opens(http, rotated["key"])) == (made["id"], 200, 200)
    last = http.post("/admin/keys/one/rotate").get_json()["key"]
    assert [opens(http, secret) for secret in (made["key"], rotated["key"], last)] == [401, 401, 200]
    assert http.post("/admin/keys/one/rotate?grace_seconds=-1").status_code == 422


def test_a_revoked_key_opens_nothing_and_is_shown_by_its_id(http: FlaskClient) -> None:
    made = create(http)
    revoked = http.delete("/admin/keys/one")
    assert (revoked.status_code, opens(http, made["key"])) == (200, 401)
    assert revoked.get_json()["revoked_at"] is not None
    assert http.get(f"/admin/keys/{made['id']}").get_json() == revoked.get_json()
    for answer in (
        http.get("/admin/keys/one"),
        http.patch(f"/admin/keys/{made['id']}", json={"weight": 2}),
        http.post(f"/admin/keys/{made['id']}/rotate"),
        http.delete("/admin/keys/nobody"),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (404, "key_not_found")
    assert create(http)["id"] != made["id"], "its name is free"


def names(answer: Any) -> list[str]:
    return [key["name"] for key in answer.get_json()["data"]]


def test_the_list_shows_the_configuration_first_and_comes_in_pages(http: FlaskClient) -> None:
    made = [create(http, f"n{number}") for number in range(3)]
    http.delete("/admin/keys/n1")
    page = http.get("/admin/keys?limit=1")
    assert (names(page), page.get_json()["has_more"]) == ([CONFIGURED, "n0"], True)
    page = http.get(f"/admin/keys?limit=1&after={made[0]['id']}")
    assert (names(page), page.get_json()["has_more"]) == (["n2"], False)
    assert names(http.get("/admin/keys?revoked=true")) == [CONFIGURED, "n0", "n1", "n2"]
    assert http.get("/admin/keys?after=nobody").status_code == 404
    assert http.get("/admin/keys?limit=0").status_code == 422


def test_a_key_of_the_configuration_is_shown_and_changed_there_alone(http: FlaskClient) -> None:
    shown = http.get(f"/admin/keys/{CONFIGURED}").get_json()
    assert (shown["source"], shown["created_at"], shown["scopes"]) == ("configuration", None, list(Scope))
    for answer in (
        http.patch(f"/admin/keys/{CONFIGURED}", json={"weight": 2}),
        http.delete(f"/admin/keys/{CONFIGURED}"),
        http.post(f"/admin/keys/{CONFIGURED}/rotate"),
    ):
        assert answer.status_code == 409 and "stands in the configuration" in answer.get_json()["detail"]


def test_who_changed_which_key_is_logged_without_a_secret(http: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "app.api.routes.admin_keys"):
        made = create(http)
        secret = http.post("/admin/keys/one/rotate").get_json()["key"]
        http.delete("/admin/keys/one")
    assert [record.getMessage() for record in caplog.records] == [
        f"{CONFIGURED} {deed} the API key one ({made['id']})" for deed in ("made", "replaced the secret of", "revoked")
    ]
    assert secret not in caplog.text and made["key"] not in caplog.text
