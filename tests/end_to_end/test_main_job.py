"""Prompts over HTTP, text from a batching worker with a real model: the contracts that a client sees."""

import json
import math
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.stack import Stack
from tests.waiting import scaled

GREEDY = {"temperature": 0, "max_tokens": 12, "repeat_penalty": 1.0}
CAPITAL = "The capital of France is"


def generate(http: httpx.Client, prompt: str = CAPITAL, **body: Any) -> httpx.Response:
    return http.post("/generate", json={"prompt": prompt, "params": GREEDY, **body})


def stream(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, str]]:
    """Return the server-sent events of a POST to `path`."""
    with http.stream("POST", path, json=body, headers={"Accept": "text/event-stream"}) as response:
        assert response.status_code == 200, response.read()
        return parse_events("".join(response.iter_text()))


def parse_events(text: str) -> list[dict[str, str]]:
    events = []
    for block in text.split("\n\n"):
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                event[name] = f"{event[name]}\n{value}" if name in event else value
        if event:
            events.append(event)
    return events


def test_generate_answers_with_the_text_as_a_json_string(http: httpx.Client) -> None:
    answer = generate(http)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert isinstance(answer.json(), str)
    assert "Paris" in answer.json()


def test_generate_answers_with_bare_text_when_the_client_accepts_it(http: httpx.Client) -> None:
    answer = http.post("/generate", json={"prompt": CAPITAL, "params": GREEDY}, headers={"Accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == generate(http).json()


def test_details_gives_the_job_object(http: httpx.Client) -> None:
    job = generate(http, details=True).json()
    assert (job["object"], job["kind"], job["status"], job["attempt"]) == ("job", "generate", "succeeded", 1)
    assert job["output"]["finish_reason"] == "length"
    assert job["usage"]["completion_tokens"] == 12
    assert job["metrics"]["time_to_first_token_seconds"] > 0
    assert http.get(job["urls"]["self"]).json() == job


def test_agenerate_answers_202_and_the_job_can_be_waited_for(http: httpx.Client) -> None:
    accepted = http.post("/agenerate", json={"prompt": CAPITAL, "params": GREEDY})
    assert accepted.status_code == 202
    job = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{job['id']}"
    final = http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
    assert (final["status"], final["output"]["text"]) == ("succeeded", generate(http).json())


def test_a_stream_carries_the_text_and_nothing_else(http: httpx.Client) -> None:
    events = stream(http, "/agenerate", {"prompt": CAPITAL, "params": GREEDY})
    assert len(events) > 3
    assert all(set(event) == {"id", "data"} for event in events)
    assert "".join(event["data"] for event in events) == generate(http).json()


def test_line_breaks_survive_the_stream(http: httpx.Client) -> None:
    body = {"prompt": "Write a list:\n1. apple\n2. pear\n3.", "params": {**GREEDY, "max_tokens": 24}}
    whole = http.post("/generate", json=body).json()
    assert "\n" in whole
    assert "".join(event["data"] for event in stream(http, "/agenerate", body)) == whole


def test_the_events_of_a_job_can_be_read_after_its_end_and_resumed(http: httpx.Client) -> None:
    job = http.post("/agenerate", json={"prompt": CAPITAL, "params": GREEDY}).json()
    final = http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
    events = parse_events(http.get(job["urls"]["events"]).text)
    text = "".join(json.loads(e["data"])["text"] for e in events if e["event"] == "delta")
    assert text == final["output"]["text"]
    assert events[-1]["event"] == "end"
    again = http.get(job["urls"]["events"], headers={"Last-Event-ID": events[0]["id"]})
    assert parse_events(again.text) == events[1:]


def test_following_a_running_job_brings_its_deltas_as_they_come(http: httpx.Client) -> None:
    params = {"temperature": 0, "max_tokens": 150, "ignore_eos": True}
    job = http.post("/agenerate", json={"prompt": CAPITAL, "params": params}).json()
    arrivals = []
    with http.stream("GET", job["urls"]["events"]) as response:
        for line in response.iter_lines():
            if line.startswith("event: delta"):
                arrivals.append(time.monotonic())
    assert len(arrivals) > 30
    assert arrivals[-1] - arrivals[0] > 0.2


def test_embeddings_are_normalised_one_per_text(http: httpx.Client) -> None:
    one = http.post("/embeddings", json={"text": "a cat on a mat"}).json()
    many = http.post("/embeddings", json={"text": ["a cat on a mat", "stock markets fell"]}).json()
    assert math.isclose(math.hypot(*one), 1.0, rel_tol=1e-3)
    assert len(many) == 2 and len(many[0]) == len(one)
    assert sum(a * b for a, b in zip(one, many[0], strict=True)) > 0.999


def test_greedy_text_is_the_same_alone_and_among_31_others(smollm2: Stack, http: httpx.Client) -> None:
    params = {"temperature": 0, "max_tokens": 24}
    body = {"prompt": "Water boils at a temperature of", "params": params}
    alone = http.post("/generate", json=body).json()
    others = [{"prompt": f"Number {n} is", "params": {"max_tokens": 8 + n}} for n in range(31)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(
            pool.map(lambda b: httpx.post(f"{smollm2.url}/generate", json=b, timeout=scaled(60)), [*others, body])
        )
    assert [answer.status_code for answer in answers] == [200] * 32
    assert answers[-1].json() == alone


def test_a_seed_gives_the_same_text_again(http: httpx.Client) -> None:
    body = {"prompt": "Once upon a time", "params": {"seed": 7, "temperature": 1.0, "max_tokens": 16}}
    first, again = http.post("/generate", json=body).json(), http.post("/generate", json=body).json()
    assert first == again
    body["params"] = {"seed": 8, "temperature": 1.0, "max_tokens": 16}
    assert http.post("/generate", json=body).json() != first


def test_stop_strings_logprobs_echo_and_schema_reach_the_model(http: httpx.Client) -> None:
    stopped = http.post("/generate", json={"prompt": "1, 2, 3, 4,", "params": {**GREEDY, "stop": [" 6"]}}).json()
    assert "6" not in stopped and "5" in stopped
    with_logprobs = generate(http, details=True, params={**GREEDY, "logprobs": 2, "echo": True}).json()
    assert with_logprobs["output"]["text"].startswith(CAPITAL)
    entries = with_logprobs["output"]["logprobs"]
    assert all(entry["logprob"] is None or entry["logprob"] <= 0 for entry in entries)
    assert len(entries) == with_logprobs["usage"]["prompt_tokens"] + 12
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    params = {"json_schema": schema, "max_tokens": 40, "temperature": 0}
    document = http.post("/generate", json={"prompt": "Describe a person as JSON:", "params": params}).json()
    assert isinstance(json.loads(document)["age"], int)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"grammar": "root ::= ("}, "params.grammar"),
        ({"json_schema": {"type": "no such type"}}, "params.json_schema"),
        ({"suffix": "the end"}, "params.suffix"),
        ({"logit_bias": {"99999999": 1}}, "params.logit_bias"),
    ],
)
def test_what_only_the_worker_can_refuse_is_still_422(http: httpx.Client, params: Any, field: str) -> None:
    answer = http.post("/generate", json={"prompt": CAPITAL, "params": params})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert any(name.startswith(field) for name in answer.json()["errors"])


def test_a_prompt_longer_than_the_context_is_422_with_both_lengths_also_as_a_stream(http: httpx.Client) -> None:
    body = {"prompt": "word " * 3000}
    answer = http.post("/generate", json=body)
    assert answer.status_code == 422
    numbers = [int(number) for number in re.findall(r"\d+", answer.json()["detail"])]
    assert 512 in numbers and any(number > 2900 for number in numbers)
    streamed = http.post("/agenerate", json=body, headers={"Accept": "text/event-stream"})
    assert (streamed.status_code, streamed.json()["detail"]) == (422, answer.json()["detail"])


def test_a_running_job_is_canceled_within_a_step_and_keeps_its_text(http: httpx.Client) -> None:
    params = {"max_tokens": 400, "ignore_eos": True}
    job = http.post("/agenerate", json={"prompt": CAPITAL, "params": params}).json()
    while http.get(job["urls"]["self"]).json()["status"] == "queued":
        time.sleep(0.01)
    time.sleep(0.3)
    assert http.post(job["urls"]["cancel"]).status_code in (200, 202)
    canceled_at = time.monotonic()
    final = http.get(job["urls"]["self"], params={"wait": 10}).json()
    assert time.monotonic() - canceled_at < scaled(2)
    assert final["status"] == "canceled"
    assert final["output"]["text"]


def test_a_client_that_leaves_generate_cancels_its_job(smollm2: Stack, http: httpx.Client) -> None:
    params = {"max_tokens": 400, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{smollm2.url}/generate", json={"prompt": "I leave", "params": params}, timeout=0.5)
    assert _newest(http, until="canceled")["status"] == "canceled"


def test_a_client_that_leaves_may_request_that_the_job_continues(smollm2: Stack, http: httpx.Client) -> None:
    body = {"prompt": "I leave", "params": {"max_tokens": 100, "ignore_eos": True}, "on_disconnect": "continue"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{smollm2.url}/generate", json=body, timeout=0.2)
    assert _newest(http, until="succeeded")["usage"]["completion_tokens"] == 100


def _newest(http: httpx.Client, until: str) -> Any:
    deadline = time.monotonic() + scaled(10)
    while True:
        (job,) = http.get("/jobs", params={"limit": 1}).json()["data"]
        if job["status"] == until or time.monotonic() > deadline:
            return job
        time.sleep(0.05)


@pytest.mark.timeout(300)
def test_200_mixed_requests_all_end_once_and_leave_no_slot_taken(smollm2: Stack, http: httpx.Client) -> None:
    known = {job["id"] for job in _all_jobs(http)}

    def one(number: int) -> None:
        params: dict[str, Any] = {"max_tokens": 4 + number % 24, "temperature": number % 3 / 2}
        if number % 4 == 0:
            params["stop"] = [" the", "."]
        body = {"prompt": f"Tell me about the number {number}:", "params": params}
        with smollm2.client() as client:
            if number % 10 == 3:
                job = client.post("/agenerate", json=body).json()
                client.post(job["urls"]["cancel"])
            elif number % 10 == 5:
                with client.stream("POST", "/agenerate", json={**body, "stream": True}) as response:
                    next(response.iter_bytes(), None)  # and hang up
            elif number % 10 == 7:
                stream(client, "/agenerate", body)
            else:
                assert client.post("/generate", json=body).status_code == 200

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(200)))
    deadline = time.monotonic() + scaled(30)
    while True:
        jobs = [job for job in _all_jobs(http) if job["id"] not in known]
        if all(job["status"] not in ("queued", "processing") for job in jobs) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert len(jobs) == 200
    assert {job["status"] for job in jobs} <= {"succeeded", "canceled"}
    assert sum(job["status"] == "succeeded" for job in jobs) >= 160
    for job in jobs:
        ends = [e for e in parse_events(http.get(job["urls"]["events"]).text) if e["event"] == "end"]
        assert len(ends) == 1
    time.sleep(5.5)  # the worker announces its load with every renewal of its leases
    (worker,) = http.get("/readyz").json()["workers"]
    assert (worker["running"], worker["used_cells"]) == (0, 0)


def _all_jobs(http: httpx.Client) -> list[Any]:
    jobs: list[Any] = []
    cursor = None
    while True:
        page = http.get("/jobs", params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        jobs += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return jobs


def test_one_client_among_many_can_wait_while_others_stream(smollm2: Stack) -> None:
    texts: list[str] = []

    def follow() -> None:
        with smollm2.client() as client:
            events = stream(client, "/agenerate", {"prompt": CAPITAL, "params": GREEDY})
            texts.append("".join(event["data"] for event in events))

    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert all("Paris" in text for text in texts)
