"""A repeated request, over HTTP."""

from tests.stack import Stack


def test_an_answer_from_the_cache_is_marked(faulty: Stack) -> None:
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
