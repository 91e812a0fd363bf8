"""A real model quantized by gptqmodel: the engine's tokens beside those of gptqmodel and of the plain weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.workers.engines.gptq.driver import logits, make_engine
from tests.workers.engines.gptq.models import NEW_TOKENS, PROMPTS, folder_with, own_tokens, quantized
from tests.workers.engines.transformers.driver import complete, generated, request
from tests.workers.engines.transformers.models import smollm2
from workers.engines.gptq import layers
from workers.engines.gptq.engine import GptqLlamaEngine

pytestmark = pytest.mark.timeout(600)  # the first test quantizes the model, or waits for another process that does


CLOSE = 0.25  # two steps of bfloat16 between logits of 16 to 32


@pytest.fixture(scope="module")
def engine(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GptqLlamaEngine]:
    yield make_engine(quantized(), tmp_path_factory.mktemp("models"), dtype="torch.bfloat16")


def test_on_torchs_kernel_the_engine_generates_the_tokens_of_gptqmodel(engine: GptqLlamaEngine, kernel: str) -> None:
    if kernel != "torch's":
        pytest.skip("our kernel rounds differently, and another token may lead where two are as likely")
    for prompt, tokens in own_tokens().items():
        assert generated(engine, prompt, max_new_tokens=NEW_TOKENS, do_sample=False) == tokens


def test_no_token_is_much_likelier_than_those_of_gptqmodel(engine: GptqLlamaEngine) -> None:
    for prompt, tokens in own_tokens().items():
        ids = engine.tokenize(prompt, add_special=True)
        rows = logits(engine, ids + tokens)[len(ids) - 1 : -1]
        chosen = rows[torch.arange(len(tokens)), torch.tensor(tokens)]
        assert float((rows.amax(1) - chosen).max()) <= CLOSE


def test_every_layer_runs_on_a_4_bit_kernel_without_a_permutation(engine: GptqLlamaEngine, kernel: str) -> None:
    int4_layers = [module for module in engine._loaded.model.modules() if isinstance(module, layers.Int4Linear)]
    assert len(int4_layers) == 30 * 4, "of 7 in a layer, three are one and two are one"
    assert all(module.permutation is None for module in int4_layers)
    weights = layers.OwnWeights if kernel == "ours" else layers.TorchWeights
    assert all(isinstance(module.weights, weights) for module in int4_layers)


def test_in_float32_batched_requests_have_the_text_of_generate_with_plain_weights(tmp_path: Path) -> None:
    engine = make_engine(quantized(), tmp_path)
    assert not [module for module in engine._loaded.model.modules() if isinstance(module, layers.Int4Linear)]
    results = complete(engine, *(request(prompt, max_tokens=NEW_TOKENS, temperature=0) for prompt in PROMPTS))
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.tokens == generated(engine, prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert results[0].text.startswith(" Paris")


def test_the_batch_streams_a_token_at_a_time(engine: GptqLlamaEngine) -> None:
    (result,) = complete(engine, request(PROMPTS[0], max_tokens=8, temperature=0, ignore_eos=True))
    assert result.text.startswith(" Paris")
    assert result.deltas == len(result.tokens) == 8


def test_a_legacy_file_with_only_two_numbers_gives_the_same_model(engine: GptqLlamaEngine, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "legacy", smollm2())
    (folder / "llama-4bit-32g.safetensors").symlink_to(quantized() / "model.safetensors")
    legacy = make_engine(folder, tmp_path, dtype="torch.bfloat16", wbits=4, group_size=32)
    job_request = request(PROMPTS[0], max_tokens=8, temperature=0)
    assert complete(legacy, job_request)[0].tokens == complete(engine, job_request)[0].tokens
