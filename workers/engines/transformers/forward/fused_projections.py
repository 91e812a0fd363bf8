"""Linear layers that read the same input become one, whose output is cut: one multiplication for two or three.

What stands in their places still answers for each of them, so that a layer as transformers wrote it works as before.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FUSED_QKV, FUSED_GATE_UP = "fused_qkv", "fused_gate_up"


class Part(nn.Module):
    """One of the layers that were fused: its share of an output that the first of them to be asked computes."""

    def __init__(self, fused: "_Fused", index: int) -> None:
        super().__init__()
        self.fused, self.index = fused, index

    def forward(self, x: Tensor) -> Tensor:
        return self.fused.share(x, self.index)


class _Fused(threading.local):
    """Looks the layer up under its name: it may be replaced by a packed one. Each thread has an output of its own."""

    def __init__(self, parent: nn.Module, name: str, sizes: Sequence[int]) -> None:
        self._parent, self._name, self._sizes = parent, name, list(sizes)
        self._input: Tensor | None = None
        self._shares: dict[int, Tensor] = {}

    def share(self, x: Tensor, index: int) -> Tensor:
        if self._input is not x or index not in self._shares:
            self._input = x
            self._shares = dict(enumerate(getattr(self._parent, self._name)(x).split(self._sizes, dim=-1)))
        found = self._shares.pop(index)
        if not self._shares:
            self._input = None
        return found


def fuse_projections(layer: Any) -> None:
    """Those of attention and of the MLP of a decoder layer, in place, where they can be."""
    _fuse(layer.self_attn, ("q_proj", "k_proj", "v_proj"), FUSED_QKV)
    _fuse(layer.mlp, ("gate_proj", "up_proj"), FUSED_GATE_UP)


def _fuse(parent: nn.Module, names: Sequence[str], fused_name: str) -> None:
    layers = [getattr(parent, name) for name in names]
    joined = _joined(layers)
    if joined is None:
        return
    parent.add_module(fused_name, joined)
    fused = _Fused(parent, fused_name, [layer.out_features for layer in layers])
    for index, name in enumerate(names):
        setattr(parent, name, Part(fused, index))


def _joined(layers: Sequence[Any]) -> nn.Module | None:
    """One layer that says what these say, side by side. A class of its own may know how: `join(layers)`."""
    kind = type(layers[0])
    if any(type(layer) is not kind or "forward" in vars(layer) for layer in layers):
        return None
    if kind is nn.Linear:
        return _joined_linears(layers)
    found: nn.Module | None = kind.join(layers) if hasattr(kind, "join") else None
    return found


def _joined_linears(layers: Sequence[nn.Linear]) -> nn.Linear | None:
    if len({(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}) > 1:
        return None
    outputs = sum(layer.out_features for layer in layers)
    joined = nn.Linear(layers[0].in_features, outputs, bias=layers[0].bias is not None, device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if joined.bias is not None:
        joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joined.train(layers[0].training)
