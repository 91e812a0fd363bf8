"""Quantized layers on a CPU.

torch multiplies 4-bit codes itself (`_weight_int4pack_mm_for_cpu`); gptqmodel has that too, behind a permutation of the
inputs that most models do not need and that costs up to half as much again. What torch has no such kernel for becomes
plain weights when it is loaded: gptqmodel would dequantize it in every step, with a C++ compiler at hand.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.engines.gptq_llama.tensors import WORD_BITS, zero_codes

GROUP_SIZES = (32, 64, 128, 256)  # of torch's kernel
_MIDDLE = 8  # what it takes off each code
_OUTPUTS = 16  # it packs so many rows together

logger = logging.getLogger(__name__)


class Int4Linear(nn.Module):
    """x `[..., K]` to `[..., N]`. permutation: the inputs in the order of their groups; None = as they come."""

    packed: Tensor
    scales: Tensor
    permutation: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor,
        group_size: int,
        permutation: Tensor | None,
        bias: Tensor | None,
    ) -> None:
        """codes: `[N, K]` int32. scales, zeros: `[K / group_size, N]`; their type is that of x."""
        super().__init__()
        self.group_size = group_size
        self.in_features, self.out_features = codes.shape[1], codes.shape[0]
        offsets = (_MIDDLE - zeros) * scales
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
        self.register_buffer("scales", torch.stack((scales, offsets), dim=2).contiguous())
        self.register_buffer("permutation", permutation)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if self.permutation is not None:
            rows = rows.index_select(1, self.permutation)
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group_size, self.scales)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    @staticmethod
    def join(layers: "Sequence[Int4Linear]") -> "Int4Linear | None":
        """One layer that says what these say, side by side; None where torch's packing does not allow it."""
        first = layers[0]
        if any(layer.group_size != first.group_size or not _alike(layer, first) for layer in layers):
            return None
        joined = Int4Linear.__new__(Int4Linear)
        nn.Module.__init__(joined)
        joined.group_size, joined.in_features = first.group_size, first.in_features
        joined.out_features = sum(layer.out_features for layer in layers)
        joined.register_buffer("packed", torch.cat([layer.packed for layer in layers]))
        joined.register_buffer("scales", torch.cat([layer.scales for layer in layers], dim=1))
        joined.register_buffer("permutation", first.permutation)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        joined.register_buffer("bias", torch.cat(biases) if biases else None)
        probe = torch.randn((2, first.in_features), generator=torch.Generator().manual_seed(0)).to(first.scales.dtype)
        apart = torch.cat([layer(probe) for layer in layers], dim=1)
        return joined.eval() if torch.equal(joined(probe), apart) else None  # blocks of rows may not be cut anywhere


def _alike(layer: Int4Linear, other: Int4Linear) -> bool:
    if (layer.permutation is None, layer.bias is None) != (other.permutation is None, other.bias is None):
        return False
    return layer.permutation is None or (
        other.permutation is not None and torch.equal(layer.permutation, other.permutation)
    )


@torch.no_grad()
def use_cpu_kernels(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace gptqmodel's layers that lie on the CPU, in place."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    found = [(name, module) for name, module in model.named_modules() if isinstance(module, TorchLinear)]
    on_cpu = [(name, module) for name, module in found if module.qweight.device.type == "cpu"]
    plain = 0
    for name, module in on_cpu:
        replacement: nn.Module | None = _int4(module, dtype)
        if replacement is None:
            replacement = _dense(module, dtype, TorchLinear.dequantize_weight)
            plain += 1
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement.eval())
    if plain:
        logger.warning(
            "%d of %d quantized layers are kept as plain %s: on a CPU, torch multiplies 4-bit groups of %s in bfloat16",
            plain,
            len(on_cpu),
            str(dtype).removeprefix("torch."),
            " or ".join(map(str, GROUP_SIZES)),
        )


def _int4(module: Any, dtype: torch.dtype) -> Int4Linear | None:
    """None where torch's kernel cannot hold the layer; in other types than bfloat16 it takes 25 to 80 times as long."""
    inputs, outputs = module.in_features, module.out_features
    size = inputs if module.group_size == -1 else module.group_size
    if dtype != torch.bfloat16 or module.bits != 4 or size not in GROUP_SIZES or inputs % size or outputs % _OUTPUTS:
        return None
    groups = module.g_idx.long()
    permutation = None
    if bool((groups.diff() < 0).any()):
        permutation = groups.argsort(stable=True)
        groups = groups[permutation]
    if not torch.equal(groups, torch.arange(inputs) // size):  # groups of unequal sizes
        return None
    shifts = torch.arange(0, WORD_BITS, 4, dtype=torch.int32)
    codes = ((module.qweight[:, None] >> shifts[:, None]) & 15).flatten(0, 1)
    if permutation is not None:
        codes = codes[permutation]
    zeros = zero_codes(module.qzeros, 4).to(dtype)
    bias = None if module.bias is None else module.bias.to(dtype)
    return Int4Linear(codes.t().contiguous(), module.scales.to(dtype), zeros, size, permutation, bias)


def _dense(module: Any, dtype: torch.dtype, dequantized: Any) -> nn.Linear:
    """dequantized: the class's method; the module's own is compiled at its first call."""
    module.scales = module.scales.float()
    weights = dequantized(module).t().to(dtype)
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    linear.weight = nn.Parameter(weights.contiguous(), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.to(dtype), requires_grad=False)
    return linear
