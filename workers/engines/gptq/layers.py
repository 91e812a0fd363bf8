"""Quantized layers on a CPU.

4-bit codes are multiplied as they are: by a kernel of our own where it can be used (`int4_kernel`), else by torch's.
gptqmodel has torch's too, behind a permutation of the inputs that most models do not need and that costs up to half as
much again. Layers that torch has no such kernel for become plain weights when they are loaded: gptqmodel would
dequantize them in every step, and needs a C++ compiler for it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.engines.gptq.int4_kernel.int4_matmul import OwnWeights, pack
from workers.engines.gptq.tensors import WORD_BITS, zero_codes

GROUP_SIZES = (32, 64, 128, 256)  # of torch's kernel
_MIDDLE = 8  # what it takes off each code
_OUTPUTS = 16  # it packs so many rows together

logger = logging.getLogger(__name__)


class TorchWeights(nn.Module):
    """The weights of a layer as torch's kernel reads them.

    The kernel is private (`torch.ops.aten._...`): torch has no public 4-bit multiplication for CPUs. torch is pinned.
    """

    def __init__(self, packed: Tensor, scales: Tensor, group_size: int, bias: Tensor | None) -> None:
        """scales: `[groups, N, 2]`, with what is added for the zero points; their type is that of x."""
        super().__init__()
        self.packed, self.scales, self.group_size, self.bias = packed, scales, group_size, bias

    @classmethod
    def of(cls, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None) -> "TorchWeights":
        """codes: `[N, K]` int32. scales, zeros: `[K / group size, N]`."""
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        offsets = (_MIDDLE - zeros) * scales
        return cls(packed, torch.stack((scales, offsets), dim=2).contiguous(), codes.shape[1] // len(scales), bias)

    def multiply(self, rows: Tensor) -> Tensor:
        """`[rows, K]` to `[rows, N]`."""
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group_size, self.scales)
        return out if self.bias is None else out.add_(self.bias)

    @classmethod
    def join(cls, parts: "Sequence[TorchWeights]") -> "TorchWeights":
        """The outputs of all, side by side; wrong where the kernel's blocks cannot be cut there, so the result is to be
        tried.
        """
        biases = [part.bias for part in parts if part.bias is not None]
        return cls(
            torch.cat([part.packed for part in parts]),
            torch.cat([part.scales for part in parts], dim=1),
            parts[0].group_size,
            torch.cat(biases) if biases else None,
        )


class Int4Linear(nn.Module):
    """x `[..., K]` to `[..., N]`. permutation: the inputs in the order of their groups; None = as they come."""

    def __init__(
        self,
        weights: OwnWeights | TorchWeights,
        *,
        inputs: int,
        outputs: int,
        group_size: int,
        permutation: Tensor | None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.group_size = inputs, outputs, group_size
        self.weights, self.permutation = weights, permutation

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if self.permutation is not None:
            rows = rows.index_select(1, self.permutation)
        return self.weights.multiply(rows).view(*x.shape[:-1], self.out_features)

    @staticmethod
    def join(layers: "Sequence[Int4Linear]") -> "Int4Linear | None":
        """Return one layer with the outputs of these, side by side; None where the packing does not allow it."""
        first = layers[0]
        if len({(layer.group_size, layer.weights.bias is None) for layer in layers}) > 1:
            return None
        if not all(_same(layer.permutation, first.permutation) for layer in layers):
            return None
        parts: Any = [layer.weights for layer in layers]  # of one class, which the CPU has decided
        joined = Int4Linear(
            type(first.weights).join(parts),
            inputs=first.in_features,
            outputs=sum(layer.out_features for layer in layers),
            group_size=first.group_size,
            permutation=first.permutation,
        )
        probe = torch.randn((2, first.in_features), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        apart = torch.cat([layer(probe) for layer in layers], dim=1)
        return joined.eval() if torch.equal(joined(probe), apart) else None


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


@torch.no_grad()
def use_cpu_kernels(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace gptqmodel's layers that lie on the CPU, in place."""
    # of gptqmodel's inner parts: the class that its backend `torch` makes, which `loading` asks for on a CPU
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, TorchLinear)]
    on_cpu = [(name, module) for name, module in layers if module.qweight.device.type == "cpu"]
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
    """Return None where torch's kernel cannot hold the layer; in types other than bfloat16 it takes 25 to 80 times as
    long.
    """
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
    codes, scales = codes.t().contiguous(), module.scales.to(dtype)
    weights = pack(codes, scales, zeros, bias) or TorchWeights.of(codes, scales, zeros, bias)
    return Int4Linear(weights, inputs=inputs, outputs=outputs, group_size=size, permutation=permutation)


def _dense(module: Any, dtype: torch.dtype, dequantized: Any) -> nn.Linear:
    """dequantized: the method of the class. That of the module would be compiled at its first call."""
    module.scales = module.scales.float()
    weights = dequantized(module).t().to(dtype)
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    linear.weight = nn.Parameter(weights.contiguous(), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.to(dtype), requires_grad=False)
    return linear
