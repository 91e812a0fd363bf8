"""`/v1/embeddings` over a scripted worker."""

import base64
import struct
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.app.api.conftest import MODEL
from tests.app.api.scripted_worker import ScriptedWorker


@pytest.fixture(autouse=True)
def embeds(worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[0.6, 0.0, 0.8] for _ in turn.request.texts])


def test_each_text_has_a_vector(client: FlaskClient, worker: ScriptedWorker) -> None:
    answer = client.post("/v1/embeddings", json={"model": MODEL, "input": ["a", [1, 2]]}).get_json()
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [0.6, 0.0, 0.8]} for index in range(2)],
        "model": MODEL,
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert worker.turns[0].request.texts == ("a", (1, 2))


@pytest.mark.parametrize(("sent", "texts"), [("a", ("a",)), ([1, 2.0], ((1, 2),)), (["a"], ("a",))])
def test_one_text_may_be_a_string_or_token_ids(
    client: FlaskClient, worker: ScriptedWorker, sent: Any, texts: Any
) -> None:
    assert len(client.post("/v1/embeddings", json={"input": sent}).get_json()["data"]) == 1
    assert worker.turns[0].request.texts == texts


def test_vectors_come_as_base64_of_floats(client: FlaskClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a", "encoding_format": "base64"}).get_json()
    vector = struct.unpack("<3f", base64.b64decode(answer["data"][0]["embedding"]))
    assert vector == pytest.approx((0.6, 0.0, 0.8))


def test_vectors_are_cut_and_normalised_anew(client: FlaskClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a", "dimensions": 2}).get_json()
    assert answer["data"][0]["embedding"] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input.1"),
        ({"input": "a", "dimensions": 4}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "text": "b"}, "text"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(client: FlaskClient, body: dict[str, Any], param: str) -> None:
    response = client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


def test_an_error_of_the_worker_about_a_text_names_the_input(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("prompt_too_long", "text.1 is too long", {"text.1": ["too long"]})
    error = client.post("/v1/embeddings", json={"input": ["a", "b"]}).get_json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input.1")
    assert error["message"] == "input.1 is too long"


@pytest.mark.parametrize(("sent", "param"), [("a", "input"), ([1, 2], "input"), (["a"], "input.0"), ([[1]], "input.0")])
def test_an_error_about_the_only_text_names_it_as_it_was_sent(
    client: FlaskClient, worker: ScriptedWorker, sent: Any, param: str
) -> None:
    worker.play = lambda turn: turn.fail("prompt_too_long", "text.0 is too long", {"text.0": ["too long"]})
    error = client.post("/v1/embeddings", json={"input": sent}).get_json()["error"]
    assert (error["param"], error["message"]) == (param, f"{param} is too long")
