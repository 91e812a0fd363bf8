"""Linear layers with the same input, joined into one: one multiplication instead of two or three.

A `Part` stands in the place of each of them, so that a layer as transformers wrote it works as before.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FUSED_QKV, FUSED_GATE_UP = "fused_qkv", "fused_gate_up"


class Part(nn.Module):
    """One of the layers that were fused: returns its share of their common output, which the first call computes."""

    def __init__(self, fused: "_Fused", index: int) -> None:
        super().__init__()
        self.fused, self.index = fused, index

    def forward(self, x: Tensor) -> Tensor:
        return self.fused.share(x, self.index)

    @property
    def place(self) -> tuple[nn.Module, slice]:
        """The fused layer, and this one's part of its output."""
        return self.fused.layer, self.fused.part(self.index)


class _Fused(threading.local):
    """The common output. The fused layer is looked up by name: a packed one may replace it. Each thread has its own."""

    def __init__(self, parent: nn.Module, name: str, sizes: Sequence[int]) -> None:
        self._parent, self._name, self._sizes = parent, name, list(sizes)
        self._input: Tensor | None = None
        self._shares: dict[int, Tensor] = {}

    @property
    def layer(self) -> nn.Module:
        layer: nn.Module = getattr(self._parent, self._name)
        return layer

    def part(self, index: int) -> slice:
        start = sum(self._sizes[:index])
        return slice(start, start + self._sizes[index])

    def share(self, x: Tensor, index: int) -> Tensor:
        if self._input is not x or index not in self._shares:
            self._input = x
            self._shares = dict(enumerate(self.layer(x).split(self._sizes, dim=-1)))
        share = self._shares.pop(index)
        if not self._shares:
            self._input = None
        return share


def is_hooked(module: Any) -> bool:
    """Does a call of the module run other code too?"""
    # private: torch and accelerate have no public way to ask for hooks
    return bool(hasattr(module, "_hf_hook") or module._forward_hooks or module._forward_pre_hooks)


def fuse_projections(layer: Any) -> None:
    """Fuse the projections of attention and of the MLP of a decoder layer, in place, where they can be."""
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
    """Return one layer with the outputs of these, side by side. A class may bring its own `join(layers)`."""
    kind = type(layers[0])
    if any(type(layer) is not kind or "forward" in vars(layer) for layer in layers):
        return None
    if kind is nn.Linear:
        return _joined_linears(layers)
    joined: nn.Module | None = kind.join(layers) if hasattr(kind, "join") else None
    return joined


def _joined_linears(layers: Sequence[nn.Linear]) -> nn.Linear | None:
    if len({(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}) > 1:
        return None
    outputs = sum(layer.out_features for layer in layers)
    joined = nn.Linear(layers[0].in_features, outputs, bias=layers[0].bias is not None, device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if joined.bias is not None:
        joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joined.train(layers[0].training)
