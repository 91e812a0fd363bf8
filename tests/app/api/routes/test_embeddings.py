import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.jobs.job import Kind
from tests.app.api.scripted_worker import ScriptedWorker, Turn


def embed(turn: Turn) -> None:
    turn.succeed(embeddings=[[float(len(text)), 0.5] for text in turn.request.texts])


def test_one_text_gives_one_vector(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = embed
    assert client.post("/embeddings", json={"text": "four"}).get_json() == [4.0, 0.5]
    assert (worker.turns[0].request.kind, worker.turns[0].request.texts) == (Kind.EMBED, ("four",))


def test_a_list_of_texts_gives_a_list_of_vectors_in_its_order(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = embed
    assert client.post("/embeddings", json={"text": ["a", "bb"]}).get_json() == [[1.0, 0.5], [2.0, 0.5]]
    assert client.post("/embeddings", json={"text": ["a"]}).get_json() == [[1.0, 0.5]]


def test_the_job_of_an_embedding_holds_its_vectors(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = embed
    response = client.post("/embeddings", json={"text": "a", "priority": "high"})
    (job,) = client.get("/jobs").get_json()["data"]
    assert response.headers["Location"] == job["urls"]["self"]
    assert (job["kind"], job["priority"], job["output"]["embeddings"]) == ("embed", "high", [[1.0, 0.5]])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": None}, "text"),
        ({"text": 3}, "text"),
        ({"text": []}, "text"),
        ({"text": ["a", ""]}, "text.1"),
        ({"text": ["a", 3]}, "text.1"),
        ({"text": ["a", None]}, "text.1"),
        ({"text": "\ud800"}, "text"),
        ({"text": ["x"] * 2049}, "text"),
        ({"text": "a", "txt": "b"}, "txt"),
        ({"text": "a", "timeout": -1}, "timeout"),
    ],
)
def test_a_wrong_field_is_named(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    response = client.post("/embeddings", data=json.dumps(body))
    assert (response.status_code, list(response.get_json()["errors"])) == (422, [field])


def test_a_model_without_embeddings_is_reported(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("unsupported_parameter", "this model has no embeddings")
    response = client.post("/embeddings", json={"text": "a"})
    assert (response.status_code, response.get_json()["detail"]) == (422, "this model has no embeddings")


@pytest.mark.parametrize(("sent", "field"), [("a", "text"), (["a"], "text.0")])
def test_an_error_about_the_only_text_names_it_as_it_was_sent(
    client: FlaskClient, worker: ScriptedWorker, sent: Any, field: str
) -> None:
    worker.play = lambda turn: turn.fail("prompt_too_long", "text.0 is too long", {"text.0": ["too long"]})
    problem = client.post("/embeddings", json={"text": sent}).get_json()
    assert (list(problem["errors"]), problem["detail"]) == ([field], f"{field} is too long")
