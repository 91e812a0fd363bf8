"""Files that load and files that do not; LoRA adapters."""

from pathlib import Path

import pytest

from app.config.settings import Config, WorkerConfig
from app.errors import ModelUnavailable
from tests.stack import SMOLLM2_FILE
from tests.workers.engines.llama.adapters import write_adapter
from tests.workers.engines.llama.driver import GREEDY, THREADS, complete, make_engine
from tests.workers.engines.llama.tiny_models import write_tiny
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams


def load(path: Path, **model_params: object) -> LlamaEngine:
    config = Config(
        model_name="m",
        setup_params={"path": str(path)},
        model_params={"n_ctx": 256, "n_threads": THREADS, **model_params},
        worker=WorkerConfig(slots=1),
    )
    return LlamaEngine(config, lambda *_: None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no GGUF file"),
        (b"PK\x03\x04 a zip file", "is no GGUF file"),
        (b"GGUF" + b"\0" * 100, "could not be loaded"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        load(path)
    assert "\n" not in caught.value.detail and str(path) in caught.value.detail


@pytest.mark.parametrize("size", [16, 32])
def test_rwkv_7_with_heads_that_llama_cpp_computes_wrongly_is_refused_in_one_line(tmp_path: Path, size: int) -> None:
    path = write_tiny(tmp_path / "rwkv.gguf", "rwkv7", wkv__head_size=size)
    with pytest.raises(
        ModelUnavailable, match=rf"heads of 64 values only, and its rwkv7\.wkv\.head_size is {size}; use"
    ):
        load(path)


@pytest.mark.parametrize("size", [5_000, 50_000_000])
def test_a_truncated_file_is_refused_with_llama_cpps_reason(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.gguf"
    with SMOLLM2_FILE.open("rb") as whole:
        path.write_bytes(whole.read(size))
    with pytest.raises(ModelUnavailable, match=r"could not be loaded \(.*(failed to read|corrupted or incomplete)"):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="there is no"):
        load(tmp_path / "nothing.gguf")


def test_of_a_folder_its_only_gguf_file_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"holds no \.gguf file"):
        load(tmp_path)
    (tmp_path / "one.gguf").symlink_to(SMOLLM2_FILE)
    load(tmp_path).close()
    (tmp_path / "two.gguf").symlink_to(SMOLLM2_FILE)
    with pytest.raises(ModelUnavailable, match="holds several"):
        load(tmp_path)


def test_a_model_loads_without_mmap_and_with_mlock() -> None:
    for params in ({"use_mmap": False}, {"use_mlock": True}, {"use_mmap": False, "use_mlock": True}):
        load(SMOLLM2_FILE, **params).close()


def test_a_loaded_model_knows_what_it_was_trained_for() -> None:
    model = Model(SMOLLM2_FILE, LlamaModelParams(), lambda *_: None)
    assert model.is_causal and model.trained_tokens == 8192
    model.close()


def first_logprobs(**model_params: object) -> tuple[str, dict[str, float]]:
    engine = make_engine(slots=1, **model_params)
    run = complete(engine, "The capital of France is", max_tokens=4, logprobs=20, **GREEDY)
    vector = engine.embed(["France"])[0][0]
    engine.close()
    return run.text, {**run.logprobs[0].top, "embedding": vector[0]}


def test_a_lora_adapter_changes_the_texts_and_a_zero_one_does_not(tmp_path: Path) -> None:
    plain = first_logprobs()
    zero = first_logprobs(lora_path=str(write_adapter(tmp_path / "zero.gguf", 0)))
    real = first_logprobs(lora_path=str(write_adapter(tmp_path / "real.gguf")))
    assert zero[0] == plain[0] and zero[1] == pytest.approx(plain[1], abs=1e-3)
    assert real != plain


@pytest.mark.parametrize("kind", ["missing", "no GGUF", "other architecture"])
def test_a_bad_adapter_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "adapter.gguf"
    if kind == "no GGUF":
        path.write_bytes(b"pickle")
    elif kind == "other architecture":
        write_adapter(path, 1, architecture="gemma")
    with pytest.raises(ModelUnavailable, match=r"lora_path") as caught:
        load(SMOLLM2_FILE, lora_path=str(path))
    assert "\n" not in caught.value.detail
