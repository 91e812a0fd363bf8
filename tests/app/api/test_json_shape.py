"""How deep JSON may nest and how many members it may have, at every place where a client sends some."""

import io
import json
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.api.json_shape import MAX_DEPTH, MAX_MEMBERS, fault_of_shape, fault_of_text
from tests.app.api.scripted_worker import ScriptedWorker
from tests.waiting import scaled


def nested(levels: int, kind: str) -> Any:
    """Return a value of so many levels below its own."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "lists" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_values_nest_up_to_a_limit(kind: str) -> None:
    assert fault_of_shape(nested(MAX_DEPTH, kind)) is None
    assert "deeper" in (fault_of_shape(nested(MAX_DEPTH + 1, kind)) or "")
    assert fault_of_shape(nested(900, kind)) is not None


def test_objects_have_members_up_to_a_limit_all_together() -> None:
    member = {str(number): None for number in range(MAX_MEMBERS // 2)}
    assert fault_of_shape([member]) is None
    assert fault_of_shape([member, member]) is None
    assert "members" in (fault_of_shape({"a": member, "b": member}) or "")


def test_a_list_of_scalars_counts_as_one() -> None:
    assert fault_of_shape({"tokens": list(range(10 * MAX_MEMBERS))}) is None


@pytest.mark.parametrize("levels", [101, 600, 900])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat_template_kwargs"),
        ("/v1/chat/completions", "tools"),
        ("/v1/chat/completions", "response_format"),
        ("/v1/chat/completions", "json_schema"),
        ("/v1/responses", "metadata"),
        ("/generate", "params"),
        ("/tokenize", "tools"),
    ],
)
def test_what_nests_too_deeply_is_a_malformed_request_wherever_it_stands(
    client: FlaskClient,
    worker: ScriptedWorker,
    caplog: pytest.LogCaptureFixture,
    path: str,
    name: str,
    levels: int,
) -> None:
    response = client.post(
        path, json={"messages": [{"role": "user", "content": "Hi"}], name: nested(levels, "objects")}
    )
    assert response.status_code == 400, response.text
    assert "nested" in response.text
    assert worker.turns == []
    assert caplog.records == []


def test_what_nests_deeply_within_the_limit_is_served(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "chat_template_kwargs": {"a": nested(MAX_DEPTH - 3, "objects")},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": nested(90, "objects")}}}],
        "tool_choice": "required",
        "response_format": {"type": "json_object", "schema": {"items": nested(90, "lists")}},
    }
    assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_of_thousands_of_unknown_names_a_few_are_reported_and_the_rest_cost_nothing(client: FlaskClient) -> None:
    unknown = {f"p{number}": 1 for number in range(7_000)}  # as many as fit into the body of these tests
    started = time.process_time()
    response = client.post("/generate", json={"prompt": "Hi", "params": unknown})
    assert response.status_code == 422
    assert len(response.get_json()["errors"]) == 16
    assert time.process_time() - started < scaled(0.5)


def test_a_line_of_a_batch_is_bounded_too(client: FlaskClient) -> None:
    body = {"messages": [], "tools": nested(200, "lists")}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body})
    file = client.post("/v1/files", data={"purpose": "batch", "file": (io.BytesIO(line.encode()), "lines")})
    sent = {"input_file_id": file.get_json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=sent).get_json()
    assert batch["status"] == "failed"
    assert "nested" in batch["errors"]["data"][0]["message"]


def test_a_text_with_too_many_members_is_known_before_it_is_parsed() -> None:
    def body(members: int) -> bytes:
        return json.dumps({f"name {number}": "a: b" for number in range(members)}).encode()

    assert fault_of_text(body(MAX_MEMBERS)) is None
    assert "members" in (fault_of_text(body(MAX_MEMBERS + 1)) or "")
    code = json.dumps({"prompt": json.dumps({f"name {number}": 1 for number in range(2 * MAX_MEMBERS)})})
    assert fault_of_text(code.encode()) is None, "a text that holds JSON has no members"
