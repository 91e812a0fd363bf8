"""Adapters that are loaded, used and unloaded over HTTP, on a real worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack
from tests.waiting import until
from tests.workers.engines.llama.adapters import write_adapter

WARM_UP, ROUNDS = 3, 6  # `make bench` has 100


@pytest.fixture(scope="module")
def file(smollm2: Stack) -> Path:
    folder = smollm2.folder / "models"
    folder.mkdir(exist_ok=True)
    return write_adapter(folder / "large.gguf", rank=16)


@pytest.fixture
def load(http: httpx.Client, file: Path) -> Iterator[str]:
    """The name of a loaded adapter."""
    http.post("/v1/load_lora_adapter", json={"lora_name": "late", "lora_path": file.name}).raise_for_status()
    yield "late"
    http.post("/v1/unload_lora_adapter", json={"lora_name": "late"})


def completion(http: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    return http.post("/v1/completions", json=body)


def resident_bytes(stack: Stack) -> int:
    fields = Path(f"/proc/{stack.processes['worker'].pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_loaded_adapter_changes_what_is_generated_and_only_by_its_name(
    http: httpx.Client, smollm2: Stack, load: str
) -> None:
    name = http.get("/v1/models").json()["data"][0]["id"]
    plain, changed = completion(http, name).json(), completion(http, load).json()
    assert changed["model"] == load
    assert plain["choices"][0]["text"] != changed["choices"][0]["text"]
    http.post("/v1/unload_lora_adapter", json={"lora_name": load}).raise_for_status()
    assert completion(http, load).status_code == 404
    assert completion(http, name).json()["choices"] == plain["choices"]


def test_a_file_that_is_no_adapter_is_refused_and_the_worker_stays(http: httpx.Client, smollm2: Stack) -> None:
    (smollm2.folder / "models" / "text.gguf").write_text("no adapter")
    for path, reason in {"text.gguf": "is no GGUF file", "/etc/passwd": "must lie in models_dir"}.items():
        response = http.post("/v1/load_lora_adapter", json={"lora_name": "bad", "lora_path": path})
        assert response.status_code == 400 and reason in response.json()["error"]["message"]
    assert completion(http, "bad").status_code == 404
    assert http.get("/readyz").status_code == 200


def test_rounds_of_loading_using_and_unloading_leave_the_memory_as_it_was(
    http: httpx.Client, smollm2: Stack, file: Path
) -> None:
    def one_round() -> None:
        http.post("/v1/load_lora_adapter", json={"lora_name": "round", "lora_path": file.name}).raise_for_status()
        completion(http, "round").raise_for_status()
        http.post("/v1/unload_lora_adapter", json={"lora_name": "round"}).raise_for_status()

    for _ in range(WARM_UP):
        one_round()
    before, size = resident_bytes(smollm2), file.stat().st_size
    for _ in range(ROUNDS):
        one_round()
    until(lambda: resident_bytes(smollm2) - before < 2 * size, what=f"less than {2 * size} bytes more than {before}")
