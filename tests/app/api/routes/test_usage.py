"""`GET /usage` over a real Valkey."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from app.api import usage_report
from app.config.settings import AuthConfig, Config
from app.jobs import keys
from app.jobs.job import ANONYMOUS
from tests.app.api.conftest import KEYS, MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.valkey import Valkey

JOB = {"prompt": "Hello", "on_disconnect": "cancel"}
NO_TOKENS = {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}


def usage(client: FlaskClient, query: str = "", **headers: str) -> Any:
    response = client.get(f"/usage{query}", headers=headers)
    assert response.status_code == 200, response.text
    return response.get_json()


def row_of(owner: str, label: str, number: int) -> dict[str, str]:
    return {f'["{owner}","{owner}","name of {owner}","{label}"]': f"{number} 0 0 0 0 0 0 0 0"}


def write_rows(redis_url: str, days_ago: int, rows: dict[str, str], model: str = MODEL) -> None:
    """Write usage as `lua/usage.lua` does."""
    day = int(datetime.now(UTC).timestamp()) // 86_400 - days_ago
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(keys.usage(day, model), mapping=rows)
        raw.zadd(keys.USAGE, {f"{day} {model}": day})


def test_a_job_is_in_the_usage_when_its_client_has_the_answer(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert usage(client)["data"] == []
    client.post("/generate", json=JOB)
    report = usage(client)
    (row,) = report["data"]
    assert (row["model"], row["requests"], row["succeeded"]) == (MODEL, 1, 1)
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (3, 2, 2)
    assert row["compute_seconds"] > 0
    assert {name: report["total"][name] for name in report["total"]} == {name: row[name] for name in report["total"]}
    assert row["day"] == report["to"] == str(datetime.now(UTC).date())
    assert report["from"] == str(datetime.now(UTC).date() - timedelta(29))


def test_each_choice_of_a_request_is_counted(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {"prompt": "Hello", "n": 3, "max_tokens": 2}
    answer = client.post("/v1/completions", json=body).get_json()
    total = usage(client)["total"]
    assert (total["requests"], total["completion_tokens"]) == (3, answer["usage"]["completion_tokens"])
    assert total["prompt_tokens"] == 3 * answer["usage"]["prompt_tokens"]


def test_embeddings_and_failures_are_counted(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of(lambda turn: turn.succeed(embeddings=[[1.0]]))
    client.post("/embeddings", json={"text": "Hello"})
    worker.play = play_of("a", lambda turn: Turn.fail(turn, "engine_error", "it broke"))
    client.post("/generate", json=JOB)
    total = usage(client)["total"]
    assert (total["succeeded"], total["failed"], total["prompt_tokens"], total["completion_tokens"]) == (1, 1, 6, 1)


def test_usage_is_summed_by_what_the_request_lists(client: FlaskClient, redis_url: str) -> None:
    write_rows(redis_url, 1, row_of(ANONYMOUS, "x", 1) | row_of(ANONYMOUS, "", 2))
    write_rows(redis_url, 0, row_of(ANONYMOUS, "x", 4), "another")
    by_label = usage(client, "?by=label")
    assert [(row["label"], row["requests"]) for row in by_label["data"]] == [("", 2), ("x", 5)]
    assert "day" not in by_label["data"][0]
    by_both = usage(client, "?by=model,label")["data"]
    assert [(row["model"], row["label"], row["requests"]) for row in by_both] == [
        ("another", "x", 4),
        (MODEL, "", 2),
        (MODEL, "x", 1),
    ]
    (by_key,) = usage(client, "?by=key")["data"]
    assert (by_key["key"], by_key["key_name"], by_key["requests"]) == (ANONYMOUS, "name of anonymous", 7)


def test_only_the_days_asked_for_are_counted(client: FlaskClient, redis_url: str) -> None:
    for days_ago in (0, 1, 29, 30, 31):
        write_rows(redis_url, days_ago, row_of(ANONYMOUS, "", 1))
    today = datetime.now(UTC).date()
    assert usage(client)["total"]["requests"] == 3
    assert usage(client, f"?from={today - timedelta(31)}")["total"]["requests"] == 5
    day = today - timedelta(1)
    assert usage(client, f"?from={day}&to={day}")["total"]["requests"] == 1
    assert usage(client, "?to=0001-01-02")["total"]["requests"] == 0


@pytest.mark.parametrize(
    ("headers", "query"), [({}, "?format=csv"), ({"Accept": "text/csv"}, ""), ({"Accept": "text/csv, */*;q=0.1"}, "")]
)
def test_usage_comes_as_csv(client: FlaskClient, redis_url: str, headers: dict[str, str], query: str) -> None:
    write_rows(redis_url, 0, row_of(ANONYMOUS, "a label, with commas", 2))
    response = client.get(f"/usage{query}{'&' if query else '?'}by=day,key,label", headers=headers)
    assert response.content_type == "text/csv; charset=utf-8; header=present"
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert list(row) == ["day", "key", "key_name", "label", *usage_report.COUNTED]
    assert (row["label"], row["requests"], row["compute_seconds"]) == ("a label, with commas", "2", "0.0")


def test_a_label_is_no_formula_in_a_spreadsheet(client: FlaskClient, redis_url: str) -> None:
    write_rows(redis_url, 0, row_of(ANONYMOUS, "=HYPERLINK(1)", 1) | row_of(ANONYMOUS, "@SUM(A1)", 1))
    rows = csv.DictReader(io.StringIO(client.get("/usage?format=csv&by=label").text))
    assert [row["label"] for row in rows] == ["'=HYPERLINK(1)", "'@SUM(A1)"]
    assert [row["label"] for row in usage(client, "?by=label")["data"]] == ["=HYPERLINK(1)", "@SUM(A1)"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html,*/*;q=0.8"])
def test_without_a_wish_for_csv_usage_is_json(client: FlaskClient, redis_url: str, accept: str) -> None:
    assert usage(client, Accept=accept)["object"] == "usage"
    assert usage(client, "?format=json", Accept="text/csv")["object"] == "usage"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2026-02-30", "to"),
        ("from=2026-11-29&to=2026-11-28", "from"),
        ("by=day,color", "by.1"),
        ("by=", "by"),
        ("format=xml", "format"),
    ],
)
def test_a_query_that_cannot_be_answered_names_its_field(
    client: FlaskClient, redis_url: str, query: str, field: str
) -> None:
    response = client.get(f"/usage?{query}")
    assert response.status_code == 422
    assert list(response.get_json()["errors"]) == [field]


def test_too_many_rows_are_refused_with_advice(
    client: FlaskClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_report, "MAX_ROWS", 2)
    write_rows(redis_url, 0, row_of(ANONYMOUS, "x", 1) | row_of(ANONYMOUS, "y", 1) | row_of(ANONYMOUS, "z", 1))
    response = client.get("/usage?by=label")
    assert response.status_code == 422
    assert "fewer groups" in response.get_json()["errors"]["by"][0]
    assert len(usage(client, "?by=day")["data"]) == 1


def test_a_key_sees_its_own_usage_alone(locked_app: Flask, worker: ScriptedWorker) -> None:
    client = locked_app.test_client()
    mine, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
    client.post("/generate", json=JOB, headers=other)
    assert usage(client, **mine)["data"] == []
    assert usage(client, **other)["total"]["requests"] == 1
    assert client.get("/usage").status_code == 401


def test_an_admin_sees_the_usage_of_all_keys_or_of_one(
    make_app: MakeApp, valkey: Valkey, worker: ScriptedWorker
) -> None:
    auth = AuthConfig(api_keys=KEYS, admin_keys=("admin-key",))
    client = make_app(Config(model_name=MODEL, redis_url=valkey.url, auth=auth)).test_client()
    admin, *keys = ({"Authorization": f"Bearer {key}"} for key in ("admin-key", *KEYS))
    for key in keys:
        client.post("/generate", json=JOB, headers=key)
    report = usage(client, "?by=key", **admin)
    owners = [row["key"] for row in report["data"]]
    assert len(owners) == report["total"]["requests"] == 2
    assert usage(client, f"?owner={owners[0]}", **admin)["total"]["requests"] == 1
    answers = [client.get(f"/usage?owner={owner}", headers=keys[0]).status_code for owner in owners]
    assert sorted(answers) == [200, 403]


def test_the_project_or_the_user_of_a_request_is_its_label(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {"prompt": "Hello", "max_tokens": 2}
    client.post("/v1/completions", json=body, headers={"OpenAI-Project": "garden"})
    client.post("/v1/completions", json=body | {"user": "ann"})
    client.post("/v1/completions", json=body)
    rows = usage(client, "?by=label")["data"]
    assert [(row["label"], row["requests"]) for row in rows] == [("", 1), ("ann", 1), ("garden", 1)]
