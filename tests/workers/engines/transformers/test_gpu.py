"""Batches on a GPU. Where torch sees none, these tests are skipped."""

import pytest
import torch

from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, request
from tests.workers.engines.transformers.models import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU on this machine"),
]


@pytest.mark.parametrize("architecture", ["gpt2", "falcon", "llama", "mistral"])
def test_16_joined_requests_have_the_tokens_of_generate_on_the_gpu(architecture: str) -> None:
    engine = engine_of(architecture)
    assert engine._slots is not None
    assert engine._loaded.device.type == "cuda"
    assert engine._slots.cache.layers[0].keys.is_cuda
    texts = ["x" * (1 + 3 * number) for number in range(16)]
    results = complete(engine, *(request(text, max_tokens=12) for text in texts))
    for text, result in zip(texts, results, strict=True):
        ids = torch.tensor([engine._vocabulary.tokenize(text)], device="cuda")
        expected = engine._loaded.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
        assert result.tokens == [token for token in expected if token != engine._loaded.tokenizer.eos_token_id]


def test_a_seed_gives_the_same_text_alone_and_in_a_batch_on_the_gpu() -> None:
    engine = engine_of("llama")
    requests = [request(f"prompt {seed}", temperature=0.9, top_p=0.9, seed=seed, max_tokens=12) for seed in range(8)]
    together = [result.tokens for result in complete(engine, *requests)]
    assert together == [complete(engine, each)[0].tokens for each in requests]


def test_a_step_waits_for_the_gpu_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("llama")
    requests = [request("abc", temperature=0.9, repeat_penalty=1.2, seed=seed, max_tokens=4) for seed in range(6)]
    waits: list[int] = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (waits.append(1), tolist(tensor))[1])
    complete(engine, *requests)
    assert len(waits) <= 4 + 6, "once a step, and once a request while it is prepared"


def test_tiny_models_can_be_made_here() -> None:
    assert tiny("llama").is_dir()
