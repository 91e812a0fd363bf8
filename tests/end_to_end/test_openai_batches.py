"""The real `openai` package's files and batches against the running service."""

import json
import time
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from tests.end_to_end.test_openai_client import BRIEF, MODEL
from tests.waiting import scaled, until

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": BRIEF,
    "/v1/completions": {"model": MODEL, "prompt": "The sun is", "max_tokens": 8, "temperature": 0},
    "/v1/embeddings": {"model": MODEL, "input": ["a cat", "a dog"]},
    "/v1/responses": {"model": MODEL, "input": "Hello", "max_output_tokens": 8, "temperature": 0},
}


def create(client: openai.OpenAI, endpoint: Any, *bodies: dict[str, Any], window: str = "24h") -> Batch:
    lines = [
        {"custom_id": str(number), "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(
        file=("lines.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    completion_window: Any = window
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=completion_window)


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + scaled(60)
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def content(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in lines}


@pytest.mark.parametrize("endpoint", BODIES)
def test_the_answers_of_a_batch_are_those_of_its_endpoint(
    client: openai.OpenAI, http: httpx.Client, endpoint: str
) -> None:
    bad = {**BODIES[endpoint], "model": "gpt-4"}
    batch = ended(client, create(client, endpoint, *[BODIES[endpoint]] * 3, bad))
    assert (batch.status, batch.endpoint) == ("completed", endpoint)
    assert batch.request_counts is not None and batch.usage is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 1)
    output = content(client, batch.output_file_id)
    bodies = [line["response"]["body"] for line in output.values()]
    assert set(output) == {"0", "1", "2"}
    assert batch.usage.total_tokens == sum(body["usage"]["total_tokens"] for body in bodies)
    live = http.post(endpoint, json=BODIES[endpoint]).json()
    assert all(_comparable(body) == pytest.approx(_comparable(live), abs=1e-4) for body in bodies)
    (error,) = content(client, batch.error_file_id).values()
    assert (error["custom_id"], error["response"]["body"]["error"]["code"]) == ("3", "model_not_found")


def test_a_single_request_gets_a_free_slot_beside_a_batch(client: openai.OpenAI, http: httpx.Client) -> None:
    long = {**BRIEF, "max_tokens": 400, "ignore_eos": True}
    batch = create(client, "/v1/chat/completions", *[long] * 200)
    until(lambda: len(http.get("/jobs?status=processing&limit=100").json()["data"]) == 24, 30)  # of 32
    assert client.chat.completions.create(**BRIEF).choices[0].message.content
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None and counts.completed == 0
    done = ended(client, client.batches.cancel(batch.id))
    assert done.status == "cancelled" and done.request_counts is not None
    assert done.request_counts.completed + done.request_counts.failed == 200
    errors = content(client, done.error_file_id)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
    assert len(errors) == done.request_counts.failed


def test_files_and_batches_are_paged_through_and_deleted(client: openai.OpenAI) -> None:
    made = [ended(client, create(client, "/v1/embeddings", BODIES["/v1/embeddings"])) for _ in range(3)]
    assert [batch.id for batch, _ in zip(client.batches.list(limit=2), made, strict=False)] == [
        batch.id for batch in reversed(made)
    ]
    names = [file.id for file in client.files.list(limit=2, purpose="batch")]
    assert names[:3] == [batch.input_file_id for batch in reversed(made)]
    assert client.files.delete(names[0]).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(names[0])


def _comparable(body: Any) -> Any:
    """Return the part that two answers to the same greedy request have in common."""
    if body["object"] == "response":
        return [part["text"] for item in body["output"] for part in item["content"]]
    if body["object"] == "list":
        return [number for row in body["data"] for number in row["embedding"]]
    return [choice.get("text") or choice["message"]["content"] for choice in body["choices"]]
