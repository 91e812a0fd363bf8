"""A service of the openai family in front of a second LLM API that runs SmolLM2, all as real processes."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.end_to_end.test_openai_client import WEATHER
from tests.stack import SMOLLM2_FILE, Stack, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled, until

GREEDY = {"max_tokens": 16, "temperature": 0}
CAPITAL: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def front(smollm2: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("front")
    setup = {"base_url": f"{smollm2.url}/v1", "model": SMOLLM2_FILE.stem}
    config = {"model_family": "openai", "model_name": "front", "setup_params": setup}
    with running_valkey(folder / "valkey") as server, running_stack(folder, server.url, config) as stack:
        yield stack


def both(smollm2: Stack, front: Stack, path: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """Send a request to the service of the model, and to the service in front of it."""
    answers = [httpx.post(f"{stack.url}{path}", json=body, timeout=scaled(60)) for stack in (smollm2, front)]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    return answers[0].json(), answers[1].json()


def test_a_prompt_is_continued_as_by_the_model_itself(smollm2: Stack, front: Stack) -> None:
    body = {"prompt": "The capital of France is", "params": {**GREEDY, "repeat_penalty": 1.0}, "details": True}
    direct, through = both(smollm2, front, "/generate", body)
    assert through["output"] == direct["output"]
    counted = ("prompt_tokens", "completion_tokens")
    assert [through["usage"][name] for name in counted] == [direct["usage"][name] for name in counted]


def test_a_chat_is_answered_with_the_models_own_log_probabilities(smollm2: Stack, front: Stack) -> None:
    body = {"messages": CAPITAL, **GREEDY, "logprobs": True, "top_logprobs": 2}
    direct, through = both(smollm2, front, "/v1/chat/completions", body)
    (one,), (other,) = direct["choices"], through["choices"]
    assert (one["message"], one["finish_reason"]) == (other["message"], other["finish_reason"])
    tokens = [[entry["token"] for entry in choice["logprobs"]["content"]] for choice in (one, other)]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 16


def test_texts_are_embedded_by_the_model_itself(smollm2: Stack, front: Stack) -> None:
    direct, through = both(smollm2, front, "/embeddings", {"text": ["one", "another"]})
    assert [row == pytest.approx(other, abs=1e-5) for row, other in zip(direct, through, strict=True)] == [True, True]


def test_a_stream_a_schema_and_a_call_work_through_both(front: Stack) -> None:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client:
        request: Any = {"model": "front", "messages": CAPITAL, "temperature": 0}
        chunks = list(client.chat.completions.create(**request, max_tokens=16, stream=True))
        assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 8
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}},
            "required": ["n"],
        }
        named = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        text = (
            client.chat.completions.create(**request, max_tokens=32, response_format=named).choices[0].message.content
        )
        assert text is not None and "n" in json.loads(text)
        choice: Any = {"type": "function", "function": {"name": "get_weather"}}
        for tool_choice in (choice, "required"):
            answer = client.chat.completions.create(**request, max_tokens=64, tools=[WEATHER], tool_choice=tool_choice)
            (call,) = answer.choices[0].message.tool_calls or []
            assert call.type == "function" and set(json.loads(call.function.arguments)) == {"city", "unit"}


def test_a_job_whose_worker_is_killed_is_continued_by_another(smollm2: Stack, front: Stack) -> None:
    body = {"prompt": "Once upon a time", "params": {"max_tokens": 300, "temperature": 0}, "stream": False}
    with front.client() as http:
        job = http.post("/agenerate", json=body).json()
        until(lambda: http.get(job["urls"]["self"]).json()["status"] == "processing", 20)
        with http.stream("GET", job["urls"]["events"]) as events:
            pieces = 0
            for line in events.iter_lines():
                pieces += line.startswith("data:")
                if pieces == 10:
                    break
        front.processes["worker"].kill()
        front.processes.pop("worker").wait()
        front.start_worker()
        until(lambda: http.get(job["urls"]["self"]).json()["status"] == "succeeded", 60)
        job = http.get(job["urls"]["self"]).json()
    straight = {"prompt": body["prompt"], "params": {"max_tokens": 8, "temperature": 0, "repeat_penalty": 1.0}}
    begun = httpx.post(f"{smollm2.url}/generate", json=straight, timeout=scaled(60)).json()
    text, events = job["output"]["text"], httpx.get(f"{front.url}{job['urls']['events']}", timeout=scaled(60)).text
    deltas = [json.loads(line[5:]) for line in events.splitlines() if line.startswith("data:")]
    assert "".join(one.get("text", "") for one in deltas) == text
    assert (job["attempt"], text.startswith(begun)) == (2, True)
