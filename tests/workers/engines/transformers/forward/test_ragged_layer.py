"""Decoder layers over ragged batches, and which models have them."""

import pytest
import torch

from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, make_engine, request
from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.forward import ragged_layer
from workers.engines.transformers.forward.ragged import Row
from workers.engines.transformers.forward.ragged_layer import RaggedLayer

KINDS = ["llama", "mistral", "qwen2", "qwen3"]


def is_ragged(engine: HuggingfaceEngine) -> bool:
    return any(isinstance(module, RaggedLayer) for module in engine._loaded.model.modules())


@pytest.mark.parametrize("architecture", KINDS)
def test_a_supported_architecture_has_the_same_logits_over_ragged_batches(architecture: str) -> None:
    engine = engine_of(architecture)
    assert is_ragged(engine)
    assert engine._slots is not None
    prompt, single = torch.randint(256, (100,), generator=torch.Generator().manual_seed(1)).tolist(), [7]
    engine._slots.run([Row(2, prompt[:70], 0), Row(0, [5, 6], 0)])
    long, short = engine._slots.run([Row(2, prompt[70:], 70, every_logit=True), Row(0, single, 2)])
    engine.reset()
    with torch.inference_mode():
        expected = engine._loaded.model(input_ids=torch.tensor([prompt])).logits[0, 70:]
        other = engine._loaded.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1:]
    torch.testing.assert_close(long, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(short, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "gemma2"])
def test_other_architectures_keep_their_layers(architecture: str) -> None:
    engine = engine_of(architecture)
    assert engine._slots is not None
    assert not is_ragged(engine)


def test_a_layer_with_other_outputs_is_logged_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ragged_layer, "_rotated", lambda states, *_: states)
    engine = make_engine(tiny("llama"))
    assert "LlamaForCausalLM takes no ragged batches (over slots its logits differ by" in caplog.text
    assert not is_ragged(engine)
    results = complete(engine, *(request(text, max_tokens=8) for text in ("abc", "defgh")))
    assert [result.tokens for result in results] == [
        generated(engine, text, max_new_tokens=8, do_sample=False) for text in ("abc", "defgh")
    ]


def test_solo_requests_go_through_the_original_layers() -> None:
    engine = engine_of("llama")
    tokens = complete(engine, request("a prompt", max_tokens=8, num_beams=3))[0].tokens
    plain = make_engine(tiny("llama"), attn_implementation="eager")
    assert not is_ragged(plain)
    assert tokens == generated(plain, "a prompt", max_new_tokens=8, num_beams=3, do_sample=False)
