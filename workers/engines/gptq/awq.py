"""Tensors quantized with AWQ, in GPTQ's layout.

A layer of K inputs and N outputs in the layout `gemm`, 4 bits in groups of G inputs:
    qweight  int32 [K, N / 8]      codes, packed along the outputs in the order of `_ORDER`
    scales   float [K / G, N]
    qzeros   int32 [K / G, N / 8]  zero points, packed likewise and as they are, which is GPTQ's format v2

A weight is scale * (code - zero point), in both. Source: AutoAWQ's `WQLinear_GEMM.from_linear`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.engines.gptq.tensors import WORD_BITS, packed

BITS = 4
LAYOUT = "gemm"
_ORDER = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # of the outputs in a word, from its lowest bits on
_CODES = WORD_BITS // BITS


def is_awq(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the codes are packed along the outputs; GPTQ packs them along the inputs."""
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    return any(_is_packed_along_outputs(tensors, name) for name in names)


def in_gptq_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with GPTQ's qweight and qzeros, in format v2, of every layer in AWQ's layout."""
    converted = dict(tensors)
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        if _is_packed_along_outputs(tensors, name):
            codes = _codes(converted.pop(f"{name}.qweight"))
            converted[f"{name}.qweight"] = packed(codes.t().contiguous(), BITS).t().contiguous()
            converted[f"{name}.qzeros"] = packed(_codes(converted[f"{name}.qzeros"]), BITS)
    return converted


def _is_packed_along_outputs(tensors: Mapping[str, Tensor], name: str) -> bool:
    scales = tensors.get(f"{name}.scales")
    return scales is not None and tensors[f"{name}.qweight"].shape[1] * _CODES == scales.shape[1]


def _codes(words: Tensor) -> Tensor:
    """`[rows, N / 8]` to `[rows, N]`, one code each."""
    parts = (words[..., None] >> torch.arange(0, WORD_BITS, BITS, dtype=torch.int32)) & (2**BITS - 1)
    codes: Tensor = parts[..., _ORDER.argsort()].flatten(1).to(torch.int32)
    return codes
