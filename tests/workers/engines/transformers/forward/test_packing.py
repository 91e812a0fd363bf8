"""Linear layers whose weights lie in blocks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.forward import packing
from workers.engines.transformers.forward.packing import PackedLinear, pack_linears
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.params import ModelKind
from workers.engines.transformers.loading.source import WeightsSource

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no fast bfloat16, and packs nothing"
)


def loaded(dtype: torch.dtype = torch.bfloat16) -> LoadedModel:
    folder: Path = tiny("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    source = WeightsSource(folder=folder, tokenizer_folder=folder)
    return LoadedModel(model=model, tokenizer=SimpleNamespace(), kind=ModelKind.CAUSAL, source=source)


def packed_layers(model: Any) -> list[PackedLinear]:
    return [module for module in model.modules() if isinstance(module, PackedLinear)]


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(input_ids=torch.arange(24).view(2, 12)).logits.float()
    return output


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (0, 64), (8, 1, 64), (1, 300, 64), (2, 3, 4, 64)])
@torch.inference_mode()
def test_a_packed_layer_has_the_output_of_the_plain_one(shape: tuple[int, ...], has_bias: bool) -> None:
    plain = nn.Linear(64, 96, bias=has_bias).bfloat16()
    inputs = torch.randn(shape).bfloat16()
    expected, output = plain(inputs), PackedLinear(plain)(inputs)
    assert (output.shape, output.dtype) == (expected.shape, expected.dtype)
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)


def test_a_packed_model_has_the_same_logits_and_keeps_its_weights_once() -> None:
    model = loaded()
    expected = logits(model.model)
    pack_linears(model)
    layers = packed_layers(model.model)
    assert len(layers) == 2 * 7 + 1
    assert all(layer.weight.device.type == "meta" for layer in layers[:-1])
    torch.testing.assert_close(logits(model.model), expected, rtol=0.02, atol=0.05 * float(expected.abs().max()))


def test_fp32_stays_as_it_is() -> None:
    model = loaded(torch.float32)
    pack_linears(model)
    assert not packed_layers(model.model)


def test_without_memory_for_both_layouts_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded()
    monkeypatch.setattr(packing, "available_memory_bytes", lambda: 1000)
    pack_linears(model)
    assert not packed_layers(model.model)


def test_a_model_that_reads_its_weights_itself_stays_unpacked() -> None:
    model = loaded()
    attention = model.model.model.layers[0].self_attn
    whole = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        assert attention.q_proj.weight.device.type == "cpu"  # as code that multiplies with it requires
        return whole(*args, **kwargs)

    attention.forward = forward
    expected = logits(model.model)
    pack_linears(model)
    assert not packed_layers(model.model)
    assert torch.equal(logits(model.model), expected)
