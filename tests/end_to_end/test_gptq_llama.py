"""A model quantized with GPTQ behind HTTP, configured as in the original: a `.pt` file and two numbers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from safetensors.torch import load_file

from tests.end_to_end.test_main_job import parse_events
from tests.stack import Stack, running_stack
from tests.valkey import running_valkey
from tests.workers.engines.gptq.models import folder_with, quantized
from tests.workers.engines.transformers.models import smollm2

pytestmark = pytest.mark.timeout(600)  # the first test waits until the model is quantized
CAPITAL = "The capital of France is"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("gptq")
    weights = load_file(quantized() / "model.safetensors")
    file = folder_with(folder / "legacy", smollm2()) / "model.pt"
    torch.save({name: tensor for name, tensor in weights.items() if not name.endswith(".g_idx")}, file)
    config = {
        "model_family": "gptq_llama",
        "models_dir": str(folder / "models"),
        "setup_params": {"path": str(file)},
        "model_params": {"group_size": 32, "wbits": 4, "device": "cpu", "n_threads": 1, "n_ctx": 512},
        "worker": {"slots": 8},
    }
    with running_valkey(folder / "valkey") as server, running_stack(folder, server.url, config) as running:
        yield running


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


def generate(http: httpx.Client, prompt: str = CAPITAL, **params: object) -> str:
    answer = http.post("/generate", json={"prompt": prompt, "params": params})
    assert answer.status_code == 200, answer.text
    text: str = answer.json()
    return text


def test_clients_at_once_are_answered_with_the_parameters_of_the_original(http: httpx.Client, stack: Stack) -> None:
    def ask(number: int) -> str:
        with stack.client() as client:
            return generate(client, temp=0, top_p=0.9, min_length=4, max_length=14)

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(ask, range(8)))
    assert all(text.startswith(" Paris") for text in texts)
    assert generate(http, temp=0.9, top_p=0.9, seed=5, max_tokens=8) == generate(
        http, temp=0.9, top_p=0.9, seed=5, max_tokens=8
    )


def test_an_answer_streams(http: httpx.Client) -> None:
    body = {"prompt": CAPITAL, "stream": True, "params": {"temp": 0, "max_tokens": 8, "ignore_eos": True}}
    events = parse_events(http.post("/agenerate", json=body).text)
    assert len(events) > 4
    assert "".join(event["data"] for event in events).startswith(" Paris")


def test_it_embeds(http: httpx.Client) -> None:
    cat, kitten, tax = http.post("/embeddings", json={"text": ["a cat", "a small cat", "the tax return"]}).json()
    assert len(cat) == 576
    assert sum(value * value for value in cat) == pytest.approx(1, abs=1e-3)
    assert sum(a * b for a, b in zip(cat, kitten, strict=True)) > sum(a * b for a, b in zip(cat, tax, strict=True))


def test_the_family_of_the_model_is_listed(http: httpx.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert model["family"] == "gptq_llama"


def test_the_worker_logs_how_the_model_was_quantized_and_draws_nothing(stack: Stack) -> None:
    log = stack.log("worker")
    assert "210 layers of 4 bits, groups of 32, plain order, symmetric" in log
    for noise in ("ModelCloud", "Kernel: selected", "\x1b[", "Loading weights", "FutureWarning"):
        assert noise not in log
