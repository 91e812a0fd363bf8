"""The files that the benchmark makes are whole, or not there."""

from pathlib import Path

import pytest

from app.config.settings import Config
from tests.bench.peers.models import Model, Shape, quantize, write_random
from tests.bench.peers.prompts import GeneratedPrompts
from tests.bench.peers.works import works
from tests.stack import SMOLLM2_FILE
from tests.workers.engines.llama.driver import GREEDY, complete
from workers.engines.llama.engine import LlamaEngine


def text_of(path: Path, prompt: str) -> str:
    config = Config(model_name="m", setup_params={"path": str(path)}, model_params={"n_ctx": 64, "n_threads": 1})
    engine = LlamaEngine(config, lambda *_: None)
    try:
        return complete(engine, prompt, max_tokens=4, **GREEDY).text
    finally:
        engine.close()


def left_out(path: Path) -> list[str]:
    model = Model.read(path)
    return [work.name for work in works(GeneratedPrompts()) if not work.suits(model)]


def test_a_file_that_was_quantized_again_has_less_bits_and_knows_what_it_knew(tmp_path: Path) -> None:
    quantize(SMOLLM2_FILE, tmp_path / "model.gguf", "Q4_0")
    assert 0.85 < (tmp_path / "model.gguf").stat().st_size / SMOLLM2_FILE.stat().st_size < 0.98
    assert text_of(tmp_path / "model.gguf", "one, two, three, four, five,") == " six, seven,"
    assert left_out(tmp_path / "model.gguf") == []
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_file_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(SMOLLM2_FILE.read_bytes()[:50_000_000])
    with pytest.raises(OSError, match=r"torn\.gguf cannot be written as Q4_0 to .*whole\.gguf: .*corrupt"):
        quantize(tmp_path / "torn.gguf", tmp_path / "whole.gguf", "Q4_0")
    assert [path.name for path in tmp_path.iterdir()] == ["torn.gguf"]


def test_a_model_of_random_weights_generates_and_chats_and_is_not_asked_for_quotes(tmp_path: Path) -> None:
    write_random(tmp_path / "random.gguf", Shape(layers=1, width=64, hidden=128, heads=4, kv_heads=2))
    assert text_of(tmp_path / "random.gguf", "The") != ""
    assert left_out(tmp_path / "random.gguf") == ["quotes"]
