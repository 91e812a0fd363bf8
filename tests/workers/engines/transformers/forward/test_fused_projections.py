"""Layers that read the same input, as one layer."""

import threading
from types import SimpleNamespace

import torch
from torch import nn

from workers.engines.transformers.forward.fused_projections import FUSED_GATE_UP, FUSED_QKV, Part, fuse_projections


def decoder_layer(*, bias: bool = True, value_bias: bool | None = None) -> SimpleNamespace:
    attention, mlp = nn.Module(), nn.Module()
    attention.q_proj, attention.k_proj = nn.Linear(8, 12, bias=bias), nn.Linear(8, 4, bias=bias)
    attention.v_proj = nn.Linear(8, 4, bias=bias if value_bias is None else value_bias)
    mlp.gate_proj, mlp.up_proj = nn.Linear(8, 20, bias=False), nn.Linear(8, 20, bias=False)
    return SimpleNamespace(self_attn=attention, mlp=mlp)


@torch.inference_mode()
def test_each_part_has_the_output_of_its_layer_and_the_fused_layer_has_all() -> None:
    layer = decoder_layer()
    attention, x = layer.self_attn, torch.randn(3, 8)
    apart = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    fuse_projections(layer)
    torch.testing.assert_close(getattr(attention, FUSED_QKV)(x), torch.cat(apart, dim=-1))
    for name, expected in zip(("v_proj", "q_proj", "k_proj"), (apart[2], apart[0], apart[1]), strict=True):
        torch.testing.assert_close(getattr(attention, name)(x), expected)
    other = torch.randn(5, 8)
    assert attention.k_proj(other).shape == (5, 4), "another input is multiplied anew, whichever part comes first"
    assert layer.mlp.gate_proj(x).shape == layer.mlp.up_proj(x).shape == (3, 20)


def test_threads_do_not_take_each_others_outputs() -> None:
    layer = decoder_layer()
    inputs = [torch.randn(3, 8) for _ in range(3)]
    with torch.inference_mode():
        expected = [layer.self_attn.k_proj(x) for x in inputs]
    fuse_projections(layer)
    wrong: list[int] = []

    def multiply(index: int) -> None:
        with torch.inference_mode():
            for _ in range(300):
                layer.self_attn.q_proj(inputs[index])
                if not torch.allclose(layer.self_attn.k_proj(inputs[index]), expected[index], atol=1e-6):
                    wrong.append(index)

    threads = [threading.Thread(target=multiply, args=[index]) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_layers_that_differ_in_kind_stay_apart() -> None:
    layer = decoder_layer(value_bias=False)
    fuse_projections(layer)
    assert not hasattr(layer.self_attn, FUSED_QKV)
    assert isinstance(layer.self_attn.q_proj, nn.Linear)
    assert isinstance(layer.mlp.up_proj, Part) and hasattr(layer.mlp, FUSED_GATE_UP)
