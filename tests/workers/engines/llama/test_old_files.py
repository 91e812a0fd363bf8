"""Models of the formats before GGUF: what llama.cpp computes from the converted file, and that the family serves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from app.config.settings import Config, WorkerConfig
from app.errors import ModelUnavailable, StartupError
from app.jobs.job import Chat
from tests.workers.engines.llama.driver import GREEDY, THREADS, complete
from tests.workers.models.ggml.old_files import (
    F16,
    F32,
    GGJT_1,
    GGJT_2,
    GGJT_3,
    GGMF,
    GGML,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    Kind,
    write_old_file,
)
from tests.workers.models.ggml.tiny_llama import BYTES, SPECIAL, WORDS, Floats, token_texts
from workers.engines.llama.engine import LlamaEngine
from workers.models.source import locate_model

TOKENS = [1, 270, 266, 282, 263, 40, 281, 291, 264]
OLDEST = [(kind, weights) for kind in (GGML, GGMF) for weights in (F32, F16, Q4_0, Q4_1)]
LATER = [(kind, weights) for kind in (GGJT_1, GGJT_2, GGJT_3) for weights in (F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)]
K_TYPES = [(GGJT_3, weights) for weights in (Q2_K, Q3_K, Q4_K, Q5_K, Q6_K)]


def config_of(path: Path, **setup_params: object) -> Config:
    return Config(
        model_name="old",
        models_dir=path.parent / "models",
        setup_params={"path": str(path), **setup_params},
        model_params={"n_ctx": 64, "n_threads": THREADS},
        worker=WorkerConfig(slots=1),
    )


def converted(path: Path, convert: object = True) -> Path:
    return locate_model(config_of(path, convert=convert), lambda *_: None, single_file=True)


@contextmanager
def loaded(path: Path) -> Iterator[llama_cpp.Llama]:
    llama = llama_cpp.Llama(
        str(path), n_ctx=64, n_threads=THREADS, logits_all=True, type_k=F32, type_v=F32, verbose=False
    )
    try:
        yield llama
    finally:
        llama.close()


def logits_of(path: Path) -> Floats:
    with loaded(path) as llama:
        llama.eval(TOKENS)
        return np.array(llama.scores[: len(TOKENS)])


def distance(computed: Floats, expected: Floats) -> float:
    """Return how far one is from the other, by the length of the other."""
    return float(np.linalg.norm(computed - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("kind", "weights"), [*OLDEST, *LATER, *K_TYPES])
def test_llama_cpp_computes_what_the_old_file_means(tmp_path: Path, kind: Kind, weights: int) -> None:
    model = write_old_file(tmp_path / "old.bin", kind, weights)
    # llama.cpp rounds activations: to 16 bits for F16, to 8 for quantized weights
    bound = {F32: 1e-5, F16: 2e-3}.get(weights, 2e-2)
    assert distance(logits_of(converted(tmp_path / "old.bin")), model.logits(TOKENS)) < bound


def test_heads_may_share_keys_and_values(tmp_path: Path) -> None:
    model = write_old_file(tmp_path / "old.bin", GGJT_3, F32, key_value_heads=2)
    path = converted(tmp_path / "old.bin", {"n_gqa": 2, "eps": 5e-6})
    assert distance(logits_of(path), model.logits(TOKENS)) < 1e-5
    with pytest.raises(ModelUnavailable, match=r"has n_gqa 2, not 8"):
        converted(tmp_path / "old.bin", {"n_gqa": 8})


def test_epsilon_and_context_may_be_given(tmp_path: Path) -> None:
    write_old_file(tmp_path / "old.bin", GGJT_3, F32)
    path = converted(tmp_path / "old.bin", {"eps": 0.5, "n_ctx": 4096})
    with loaded(path) as llama:
        assert llama.metadata["llama.context_length"] == "4096"
        assert float(llama.metadata["llama.attention.layer_norm_rms_epsilon"]) == 0.5


@pytest.mark.parametrize("kind", [GGML, GGMF, GGJT_1, GGJT_2, GGJT_3])
def test_texts_become_the_tokens_of_the_old_vocabulary(tmp_path: Path, kind: Kind) -> None:
    texts = token_texts(knows_bytes=kind is not GGML)
    write_old_file(tmp_path / "old.bin", kind, F16, texts=texts)
    with loaded(converted(tmp_path / "old.bin")) as llama:
        tokens = llama.tokenize(" the thing é".encode(), add_bos=True)
        words = [token - SPECIAL - BYTES for token in tokens]
        # two spaces in front: llama.cpp adds one. "é" has no token, so it is two bytes.
        assert [WORDS[word] for word in words[1:-3]] == [" ", " the", " th", "ing"]
        assert tokens[0] == 1 and tokens[-2:] == [SPECIAL + byte for byte in "é".encode()]
        assert llama.detokenize(tokens).decode().strip() == "the thing é"
        assert (llama.token_bos(), llama.token_eos()) == (1, 2)


@pytest.mark.parametrize("key", ["convert", "migrate"])
def test_the_family_serves_a_converted_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "ggml-model-q4_0.bin"
    model = write_old_file(path, GGJT_1, Q4_0)
    engine = LlamaEngine(config_of(path, **{key: True}), lambda *_: None)
    prompt = " the thing"
    run = complete(engine, prompt, max_tokens=1, **GREEDY)
    tokens = engine.tokenize(prompt, add_special=True)
    assert run.tokens[0] == int(model.logits(tokens)[-1].argmax())
    engine.close()


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("ggml-koala-7b.bin", "BEGINNING OF CONVERSATION: USER: Hi GPT:"),
        ("old.bin", "<|im_start|>user\nHi<|im_end|>\n"),
    ],
)
def test_chats_are_written_as_the_name_of_the_file_says(tmp_path: Path, name: str, prompt: str) -> None:
    write_old_file(tmp_path / name)
    assert chat_of(config_of(tmp_path / name, convert=True)).startswith(prompt)


def test_chats_are_written_as_the_configured_name_of_the_model_says(tmp_path: Path) -> None:
    write_old_file(tmp_path / "old.bin")
    config = replace(config_of(tmp_path / "old.bin", convert=True), model_name="my-vicuna-7b")
    assert chat_of(config).endswith(" USER: Hi ASSISTANT:")


def chat_of(config: Config) -> str:
    """The prompt that a model makes of a chat."""
    engine = LlamaEngine(config, lambda *_: None)
    chat = Chat(messages=[{"role": "user", "content": "Hi"}])
    prompt = engine.detokenize(engine.tokenize(chat, add_special=False)).strip()
    engine.close()
    return prompt


@pytest.mark.parametrize("setup_params", [{}, {"convert": False, "migrate": False}, {"convert": None}])
def test_an_old_file_is_named_with_the_key_that_converts_it(tmp_path: Path, setup_params: dict[str, object]) -> None:
    path = tmp_path / "old.bin"
    write_old_file(path, GGJT_2)
    for attempt in (LlamaEngine.check, lambda config: LlamaEngine(config, lambda *_: None)):
        with pytest.raises(StartupError, match=r"GGJT version 2 .*setup_params\.convert") as caught:
            attempt(config_of(path, **setup_params))
        assert str(path) in caught.value.detail and "\n" not in caught.value.detail


def test_an_old_adapter_is_named(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.bin"
    adapter.write_bytes(b"algg" + bytes(100))
    path = tmp_path / "old.bin"
    write_old_file(path)
    config = config_of(path, convert=True)
    with pytest.raises(ModelUnavailable, match=r"lora_path: .*GGLA"):
        LlamaEngine(
            Config(
                model_name="old",
                models_dir=config.models_dir,
                setup_params=config.setup_params,
                model_params={"lora_path": str(adapter)},
            ),
            lambda *_: None,
        )
