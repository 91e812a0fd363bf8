"""`/tokenize` and `/detokenize`, answered by a worker's own thread over a small engine."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.config.settings import Config
from app.errors import InvalidRequest
from app.jobs.job import Chat
from app.jobs.redis_client import RedisClient
from tests.app.api.conftest import MODEL
from tests.app.api.scripted_worker import ScriptedWorker
from tests.engines.instant import Instant
from workers.tokenizer_service import TokenizerService


@pytest.fixture(autouse=True)
def answers(worker: ScriptedWorker, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("workers.tokenizer_service.POLL_SECONDS", 0.05)  # each test waits for it at its end
    engine = Instant(Config(model_name=MODEL), lambda *_: None)
    answers = TokenizerService(redis_client, MODEL, engine)
    answers.start()
    yield
    answers.stop()


def test_a_text_becomes_tokens_and_tokens_a_text(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert client.post("/tokenize", json={"text": "ab"}).get_json() == {"tokens": [0, 97, 98], "count": 3}
    assert client.post("/tokenize", json={"text": "ab", "add_special": False}).get_json()["tokens"] == [97, 98]
    assert client.post("/detokenize", json={"tokens": [97, 98]}).get_json() == {"text": "ab"}
    assert worker.turns == [], "no job was made"


@pytest.mark.parametrize("names", [{"model": MODEL, "prompt": "ab"}, {"content": "ab"}, {"model": "", "text": "ab"}])
def test_other_servers_names_of_the_text_are_read(client: FlaskClient, names: dict[str, Any]) -> None:
    assert client.post("/tokenize", json=names).get_json()["tokens"] == [0, 97, 98]
    for special in ("add_special", "add_special_tokens"):
        assert client.post("/tokenize", json={**names, special: False}).get_json()["tokens"] == [97, 98]


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"prompt": "ab"}), ("/detokenize", {"tokens": [97]})])
def test_another_model_than_the_served_one_is_not_found(client: FlaskClient, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json={**body, "model": MODEL}).status_code == 200
    problem = client.post(path, json={**body, "model": "another"}).get_json()
    assert (problem["status"], list(problem["errors"])) == (404, ["model"])


def test_an_error_of_the_worker_names_the_text_as_it_was_sent(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenize(self: Instant, text: str, *, add_special: bool) -> list[int]:
        raise InvalidRequest("text: it cannot be tokenized", errors={"text": ["it cannot be tokenized"]})

    monkeypatch.setattr(Instant, "tokenize", tokenize)
    problem = client.post("/tokenize", json={"prompt": "ab"}).get_json()
    assert (list(problem["errors"]), problem["detail"]) == (["prompt"], "prompt: it cannot be tokenized")


def test_the_tokens_of_a_long_text_come_in_their_order(client: FlaskClient) -> None:
    text = "".join(chr(97 + number % 26) for number in range(20_000))
    answer = client.post("/tokenize", json={"text": text, "add_special": False}).get_json()
    assert answer == {"tokens": list(text.encode()), "count": len(text)}


def test_where_the_prompt_of_a_conversation_ends_reaches_the_worker(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats: list[Chat] = []

    def tokenize(self: Instant, text: Chat, *, add_special: bool) -> list[int]:
        chats.append(text)
        return [1]

    monkeypatch.setattr(Instant, "tokenize", tokenize)
    body = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": False}
    assert client.post("/tokenize", json={**body, "continue_final_message": True}).status_code == 200
    assert (chats[0].continues, chats[0].add_generation_prompt) == (True, False)
    both = client.post("/tokenize", json={**body, "continue_final_message": True, "add_generation_prompt": True})
    assert (both.status_code, list(both.get_json()["errors"])) == (422, ["continue_final_message"])


def test_an_error_of_the_worker_names_the_field(client: FlaskClient) -> None:
    response = client.post("/tokenize", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert (response.status_code, list(response.get_json()["errors"])) == (422, ["messages"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, "text"),
        ("/tokenize", {"text": "a", "messages": [{"role": "user", "content": "Hi"}]}, "messages"),
        ("/tokenize", {"text": "a", "prompt": "a"}, "prompt"),
        ("/tokenize", {"text": "a", "add_special": True, "add_special_tokens": False}, "add_special_tokens"),
        ("/tokenize", {"text": 1}, "text"),
        ("/tokenize", {"text": "a", "specials": True}, "specials"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
    ],
)
def test_a_wrong_field_is_named(client: FlaskClient, path: str, body: dict[str, Any], field: str) -> None:
    response = client.post(path, json=body)
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])
