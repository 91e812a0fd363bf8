"""What `langchain-llm-api` 0.0.1 and `llm-api-python` 0.0.2 send, byte for byte, and how they read the answer."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import received

JSON = {"Content-Type": "application/json"}


def send(client: FlaskClient, path: str, body: dict[str, Any], headers: dict[str, str]) -> TestResponse:
    return client.post(path, data=json.dumps(body), headers=headers)


def test_langchain_reads_the_body_of_generate(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {"prompt": "What is it?", "params": {"n_predict": 300, "temp": 0.2, "stop": []}}
    response = send(client, "/generate", body, JSON)
    assert response.text == '"Hello world"'
    assert worker.turns[0].request.params == {"max_tokens": 300, "temperature": 0.2, "stop": []}


def test_langchain_adds_up_the_data_of_the_stream(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {"prompt": "What is it?", "params": {"stop": ["\n\n"]}}
    response = send(client, "/agenerate", body, {**JSON, "Accept": "text/event-stream"})
    assert "".join(event.data for event in received(response)) == "Hello world"


def test_langchain_embeds_text_by_text(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[0.6, 0.8]])
    response = send(client, "/embeddings", {"text": "a document"}, JSON)
    assert list(map(float, response.get_json())) == [0.6, 0.8]


PYTHON_CLIENT = {**JSON, "User-Agent": "LLM-API Python/0.0.1", "Authorization": "Bearer anything"}


@pytest.mark.parametrize("timeout", [{}, {"timeout": 20}, {"timeout": 12.5}])
def test_llm_api_python_sends_messages_and_timeouts_beside_the_prompt(
    client: FlaskClient, worker: ScriptedWorker, timeout: dict[str, float]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "x", "prompt": "## user: hi", **timeout}
    assert send(client, "/generate", body, PYTHON_CLIENT).text == '"Hello world"'


def test_llm_api_python_reads_the_stream_line_by_line(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of(" Hello", " world", Turn.succeed)
    body = {"messages": [], "stream": True, "prompt": "## user: hi"}
    response = send(client, "/agenerate", body, PYTHON_CLIENT)
    assert "text/event-stream" in response.headers["Content-Type"]
    lines = response.get_data().splitlines()
    read = [line[len(b"data: ") :] for line in lines if line.startswith(b"data: ")]
    assert b"".join(read) == b" Hello world"


def test_llm_api_python_finds_a_detail_in_every_error(client: FlaskClient) -> None:
    assert isinstance(send(client, "/generate", {"prompt": ""}, PYTHON_CLIENT).get_json()["detail"], str)
