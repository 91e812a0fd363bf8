"""A recurrent model, whose state lives in its worker only: a chat whose worker is killed continues on another one."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from app.jobs.redis_client import connect
from app.jobs.worker_registry import WorkerState, read_workers
from tests.lost_worker import lose_worker
from tests.stack import Stack
from tests.valkey import running_valkey
from tests.waiting import until
from tests.workers.engines.llama.tiny_models import write_tiny

TOKENS = 400
QUESTION = "<s><u>Count the ships that pass, and write down each of them with its number.</u><a>"
AGAIN = "</a><u>And those of the next night?</u><a>"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with two workers on a tiny Mamba model."""
    folder = tmp_path_factory.mktemp("recurrent")
    config = {
        "model_name": "tiny",
        "setup_params": {"path": str(write_tiny(folder / "mamba.gguf", "mamba"))},
        "model_params": {"n_ctx": 4096, "n_threads": 1},
        "worker": {"slots": 2},
        "server": {"processes": 1},
    }
    with running_valkey(folder / "valkey") as server:
        stack = Stack(folder, server.url, config)
        try:
            stack.start_worker("worker-1")
            stack.start_worker("worker-2")
            stack.start_api()
            stack.wait_ready()
            client = connect(server.url)
            until(lambda: [one.state for one in read_workers(client)] == [WorkerState.READY] * 2, seconds=30)
            yield stack
        finally:
            stack.stop()


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "temperature": 0, "ignore_eos": True, "max_tokens": TOKENS, **more}


def test_a_chat_of_a_recurrent_model_continues_where_its_killed_worker_stood_and_goes_on_from_there(
    stack: Stack,
) -> None:
    client = connect(stack.redis_url)
    with stack.client() as http:
        undisturbed = http.post("/v1/completions", json=body(QUESTION)).json()["choices"][0]["text"]
        pieces: list[str] = []
        with http.stream("POST", "/v1/completions", json=body(QUESTION, stream=True)) as response:
            job = response.headers["Location"].rpartition("/")[2]
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    pieces.append(json.loads(line[6:])["choices"][0]["text"])
                if len(pieces) == 5 and line:
                    worker, published = client.hmget(f"llm:job:{job}", ["worker", "published"])
                    assert worker is not None and 0 < int(published or 0) < TOKENS / 2, "it is too fast to be killed"
                    os.kill(int(worker.rsplit("-", 2)[1]), signal.SIGKILL)
                    lose_worker(stack.redis_url, job, model="tiny")  # without waiting for the end of its lease
        assert "".join(pieces) == undisturbed
        ended = http.get(f"/jobs/{job}").json()
        assert (ended["status"], ended["usage"]["completion_tokens"]) == ("succeeded", TOKENS)
        chat, cached = QUESTION + undisturbed, list[int]()
        for _ in range(2):
            turn = http.post("/v1/completions", json=body(chat + AGAIN, max_tokens=8)).json()
            chat += AGAIN + turn["choices"][0]["text"]
            cached.append(turn["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached[1] > TOKENS / 2, "the next turn continues after a checkpoint of the one before"
