"""The field `webhook` of a request, from HTTP to the receiver."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.webhooks.queue import WebhookQueue
from app.api.webhooks.sender import WebhookSender
from app.config.settings import Config, WebhooksConfig
from app.jobs.redis_client import connect
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, play_of
from tests.app.api.webhooks.receiver import SECRET, listening
from tests.valkey import Valkey
from tests.waiting import until

PUBLIC = {"url": "https://example.com/hook"}


@pytest.fixture(scope="session")
def signing_app(make_app: MakeApp, valkey: Valkey) -> Flask:
    return make_app(Config(model_name=MODEL, redis_url=valkey.url, webhooks=WebhooksConfig(secret=SECRET)))


@pytest.fixture
def signing(signing_app: Flask, redis_url: str) -> FlaskClient:
    return signing_app.test_client()


@pytest.fixture(scope="session")
def open_app(make_app: MakeApp, valkey: Valkey) -> Flask:
    webhooks = WebhooksConfig(secret=SECRET, allow_private=True)
    return make_app(Config(model_name=MODEL, redis_url=valkey.url, webhooks=webhooks))


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"prompt": "p"}),
    ("/agenerate", {"prompt": "p"}),
    ("/embeddings", {"text": "t"}),
    ("/v1/completions", {"prompt": "p"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "p"}]}),
    ("/v1/embeddings", {"input": "t"}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_the_end_of_every_kind_of_job_is_reported(
    open_app: Flask, redis_url: str, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    with listening() as receiver:
        worker.play = play_of("text", lambda turn: turn.succeed(embeddings=[[1.0]] if turn.request.texts else None))
        answer = open_app.test_client().post(path, json={**body, "webhook": {"url": receiver.url}})
        assert answer.status_code in (200, 202), answer.text
        sender = WebhookSender(WebhookQueue(connect(redis_url), MODEL), SECRET, allow_private=True)
        sender.start()
        until(lambda: receiver.requests)
        sender.stop()
        event = receiver.verified()
        assert (event["type"], event["data"]["status"]) == ("job.succeeded", "succeeded")
        assert event["data"]["output"]["text"] == "text"


def test_the_job_object_says_what_has_become_of_its_webhook(
    open_app: Flask, redis_url: str, worker: ScriptedWorker
) -> None:
    client = open_app.test_client()
    with listening() as receiver:
        body = {"prompt": "p", "webhook": {"url": receiver.url}}
        path = f"/jobs/{client.post('/agenerate', json=body).get_json()['id']}"
        ended = client.get(f"{path}?wait=10").get_json()
        assert (ended["webhook"]["state"], ended["webhook"]["tries"], ended["webhook"]["error"]) == ("waiting", 0, None)
        assert ended["webhook"]["next_try_at"][:19] == ended["completed_at"][:19]
        sender = WebhookSender(WebhookQueue(connect(redis_url), MODEL), SECRET, allow_private=True)
        sender.start()
        until(lambda: client.get(path).get_json()["webhook"]["state"] != "waiting")
        sender.stop()
        sent = {"state": "sent", "tries": 1, "error": None, "next_try_at": None}
        assert client.get(path).get_json()["webhook"] == client.get(f"/live{path}").get_json()["webhook"] == sent
        assert receiver.verified()["data"] == ended, "the job as it ended"


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_without_a_secret_a_webhook_is_refused(client: FlaskClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json={**body, "webhook": PUBLIC})
    assert answer.status_code == (400 if path.startswith("/v1") else 422)
    assert "webhooks.secret" in answer.text


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https:///nowhere"}, "url"),
        ({"url": "https://example.com/\r\nX: y"}, "url"),
        ({"url": "https://example.com/ x"}, "url"),
        ({"url": "https://me:you@example.com/"}, "url"),
        ({"url": "https://example.com/#x"}, "url"),
        ({"url": "http://127.0.0.1:8000/"}, "url"),
        ({"url": "http://[::1]/"}, "url"),
        ({"url": "https://example.com/", "events": []}, "events"),
        ({"url": "https://example.com/", "events": ["job.started"]}, "events"),
        ({"url": "https://example.com/", "secret": "x"}, "secret"),
        ({}, "url"),
    ],
)
def test_a_faulty_webhook_is_refused_by_the_field(signing: FlaskClient, webhook: dict[str, Any], field: str) -> None:
    answer = signing.post("/agenerate", json={"prompt": "p", "webhook": webhook})
    assert answer.status_code == 422, answer.text
    assert any(name.startswith(f"webhook.{field}") for name in answer.json["errors"])


def test_null_is_no_webhook(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert client.post("/agenerate", json={"prompt": "p", "webhook": None}).status_code == 202
