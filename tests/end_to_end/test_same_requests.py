"""The same request at the same time, and again: over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.stack import Stack

GREEDY = {"temperature": 0, "max_tokens": 24, "repeat_penalty": 1.0, "ignore_eos": True}


def test_many_who_ask_the_same_at_once_get_the_same_and_one_of_them_is_computed(http: httpx.Client) -> None:
    prompt = "The seven wonders of the world, in one long list:"

    def ask(number: int) -> dict[str, Any]:
        answer = http.post("/generate", json={"prompt": prompt, "params": GREEDY, "details": True})
        job: dict[str, Any] = answer.json()
        return job

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, number) for number in range(8)]
        jobs = [job.result() for job in waiting]
    texts = {job["output"]["text"] for job in jobs}
    assert len(texts) == 1 and all(job["status"] == "succeeded" for job in jobs)
    sources = [job["metrics"]["source"] for job in jobs]
    assert sources.count("joined") >= 1 and set(sources) == {"computed", "joined"}
    for job in jobs:
        assert job["usage"]["completion_tokens"] == 24
        if job["metrics"]["source"] == "joined":
            assert job["usage"]["cached_tokens"] == job["usage"]["prompt_tokens"]


def test_choices_without_a_seed_are_one_computation_at_temperature_0(http: httpx.Client) -> None:
    body = {"prompt": "Water boils at", "temperature": 0, "max_tokens": 16, "n": 4, "best_of": 4}
    model = http.get("/v1/models").json()["data"][0]["id"]
    answer = http.post("/v1/completions", json={"model": model, **body})
    assert answer.status_code == 200, answer.text
    assert len({choice["text"] for choice in answer.json()["choices"]}) == 1


def test_an_answer_out_of_the_cache_says_so(faulty: Stack) -> None:
    body = {"prompt": "hello", "params": {"temperature": 0}}
    with faulty.client() as client:
        first, second = (client.post("/generate", json=body) for _ in range(2))
        assert first.json() == second.json() == " done"
        assert "cache-status" not in first.headers
        assert second.headers["cache-status"] == "llm-api; hit"
        job = client.get(second.headers["location"]).json()
        assert (job["status"], job["metrics"]["source"]) == ("succeeded", "cached")
        chat = {"model": job["model"], "prompt": "hello", "temperature": 0}
        answers = [client.post("/v1/completions", json=chat) for _ in range(2)]
        assert [answer.headers.get("cache-status") for answer in answers][1] == "llm-api; hit"
        assert answers[1].json()["choices"] == answers[0].json()["choices"]
        with client.stream("POST", "/agenerate", json={**body, "stream": True}) as stream:
            assert "data:  done" in "".join(stream.iter_text())
        vectors = [client.post("/embeddings", json={"text": "hello"}) for _ in range(2)]
        assert vectors[0].json() == vectors[1].json() and vectors[1].headers["cache-status"] == "llm-api; hit"
        drawn = [client.post("/generate", json={"prompt": "hello"}) for _ in range(2)]
        assert all("cache-status" not in answer.headers for answer in drawn)
        client.delete(first.headers["location"])
        assert "cache-status" not in client.post("/generate", json=body).headers
