"""A model of transformers behind HTTP: a batch, other ways of decoding, embeddings, and a worker that stops."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.test_main_job import parse_events
from tests.stack import Stack, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled
from tests.workers.engines.transformers.models import smollm2, tiny

CAPITAL = "The capital of France is"


def config(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_family": "huggingface",
        "setup_params": {"path": str(folder)},
        "model_params": {"n_threads": 1, "n_ctx": 512, "dtype": "torch.float32"},
        "worker": {"slots": 8, "drain_seconds": 0},
        **more,
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("huggingface")
    with running_valkey(folder / "valkey") as server, running_stack(folder, server.url, config(smollm2())) as running:
        yield running


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


def generate(http: httpx.Client, prompt: str = CAPITAL, **params: Any) -> httpx.Response:
    return http.post("/generate", json={"prompt": prompt, "params": {"max_new_tokens": 8, **params}, "details": True})


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["output"]["text"]
    return text


@pytest.mark.timeout(300)
def test_16_clients_at_once_get_what_each_gets_alone(http: httpx.Client, stack: Stack) -> None:
    prompts = [f"{CAPITAL} {number}" for number in range(16)]

    def ask(prompt: str) -> str:
        with stack.client() as client:
            return text_of(generate(client, prompt, repetition_penalty=1.1, do_sample=False))

    alone = [ask(prompt) for prompt in prompts[:4]]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, prompts))
    assert together[:4] == alone
    assert "Paris" in text_of(generate(http))


def test_a_seed_gives_the_same_text_again(http: httpx.Client) -> None:
    params = {"do_sample": True, "temperature": 1.2, "seed": 3, "max_new_tokens": 16}
    assert text_of(generate(http, **params)) == text_of(generate(http, **params))


def test_beams_are_answered_and_streams_carry_a_batch(http: httpx.Client) -> None:
    assert "Paris" in text_of(generate(http, num_beams=2))
    body = {"prompt": CAPITAL, "stream": True, "params": {"max_new_tokens": 8, "do_sample": False}}
    events = parse_events(http.post("/agenerate", json=body).text)
    assert len(events) > 4
    assert "".join(event["data"] for event in events) == text_of(generate(http))


@pytest.mark.parametrize(
    ("prompt", "params", "code", "field"),
    [
        (CAPITAL, {"num_beam": 2}, "invalid_request", "params.num_beam"),  # the API knows the names
        (CAPITAL, {"num_return_sequences": 3}, "unsupported_parameter", "params.num_return_sequences"),
        (
            CAPITAL,
            {"no_repeat_ngram_size": -1, "suppress_tokens": [10**6]},
            "invalid_request",
            "params.suppress_tokens",
        ),
        ("word " * 9000, {}, "prompt_too_long", "prompt"),
    ],
)
def test_what_cannot_be_done_is_422_by_name(
    http: httpx.Client, prompt: str, params: dict[str, Any], code: str, field: str
) -> None:
    answer = generate(http, prompt, **params)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert field in answer.json()["errors"]


def test_requests_that_do_not_fit_wait(http: httpx.Client, stack: Stack) -> None:
    def ask(number: int) -> int:
        with stack.client() as client:
            job = generate(client, f"{number} word " * 20, max_new_tokens=4, ignore_eos=True).json()
        return int(job["usage"]["completion_tokens"])

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [4] * 20
    deadline = time.monotonic() + scaled(10)
    while True:  # the worker announces its load with every renewal of its leases
        (worker,) = http.get("/readyz").json()["workers"]
        if (worker["running"], worker["used_cells"]) == (0, 0):
            break
        assert time.monotonic() < deadline, worker
        time.sleep(0.2)


def test_a_causal_model_embeds(http: httpx.Client) -> None:
    one, two = http.post("/embeddings", json={"text": ["a cat", "a dog"]}).json()
    assert len(one) == len(two) == 576
    assert sum(value * value for value in one) == pytest.approx(1, abs=1e-3)


def test_a_worker_that_stops_hands_even_solo_jobs_to_the_next(tmp_path: Path) -> None:
    params = {"max_new_tokens": 200, "ignore_eos": True, "no_repeat_ngram_size": 9}
    options = config(tiny("mamba"), model_params={"n_threads": 1, "dtype": "torch.float32"})
    with (
        running_valkey(tmp_path / "valkey") as server,
        running_stack(tmp_path, server.url, options) as stack,
        stack.client() as http,
    ):
        expected = text_of(generate(http, **params))
        job = http.post("/agenerate", json={"prompt": CAPITAL, "params": params}).json()["id"]
        while http.get(f"/jobs/{job}").json()["status"] == "queued":
            time.sleep(0.005)
        time.sleep(0.1)
        stack.processes["worker"].send_signal(signal.SIGTERM)
        assert stack.processes.pop("worker").wait(scaled(20)) == 0
        stack.start_worker("second")
        done = http.get(f"/jobs/{job}", params={"wait": 60}).json()
    assert (done["status"], done["output"]["text"]) == ("succeeded", expected)
    assert done["usage"]["completion_tokens"] == 200


def test_a_model_that_cannot_be_loaded_is_reported_in_one_line(tmp_path: Path) -> None:
    with running_valkey(tmp_path / "valkey") as server:
        stack = Stack(tmp_path, server.url, config(tmp_path, model_name="nothing"))
        assert stack.start_worker().wait(scaled(60)) == 78
        (line,) = [line for line in stack.log("worker").splitlines() if line.startswith("worker:")]
    assert "could not be loaded" in line
    assert "Traceback" not in stack.log("worker")


def test_a_conversation_is_rendered_with_the_tokenizers_own_template(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    tokens = http.post("/tokenize", json={"messages": messages}).json()
    assert http.post("/detokenize", json={"tokens": tokens["tokens"]}).json()["text"].startswith("<|im_start|>")
    chat = {"messages": messages, "max_tokens": 8, "temperature": 0}
    answer = http.post("/v1/chat/completions", json=chat)
    assert answer.status_code == 200, answer.text
    completion = answer.json()
    assert completion["choices"][0]["message"]["content"]
    assert completion["usage"]["prompt_tokens"] == len(tokens["tokens"])


def test_tokens_may_replace_texts(http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"text": CAPITAL}).json()["tokens"]
    body = {"max_tokens": 4, "temperature": 0}
    by_text, by_tokens = (
        http.post("/v1/completions", json={"prompt": prompt, **body}).json() for prompt in (CAPITAL, tokens)
    )
    assert by_text["choices"][0]["text"] == by_tokens["choices"][0]["text"]
