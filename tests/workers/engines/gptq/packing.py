"""Quantization by rounding to nearest, written from the formats: the reference for the engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.workers.engines.gptq.models import folder_with
from tests.workers.engines.transformers.models import tiny


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """group_size -1: one group per column. ordered: groups in an order of their own, as with `desc_act`.
    subtracted: what is taken off the zero points before they are stored, 1 in format v1.
    """

    bits: int = 4
    group_size: int = 32
    ordered: bool = False
    symmetric: bool = True
    subtracted: int = 1


def pack(codes: Tensor, bits: int) -> Tensor:
    """codes: `[R, C]`, a stream of bits down each column; returns int32 `[R * bits / 32, C]`."""
    stream = ((codes.long()[:, None] >> torch.arange(bits)[None, :, None]) & 1).flatten(0, 1).unflatten(0, (-1, 32))
    words = (stream << torch.arange(32)[None, :, None]).sum(1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def quantize(weight: Tensor, recipe: Recipe) -> tuple[dict[str, Tensor], Tensor]:
    """weight: `[N, K]`. Returns the four tensors of a layer, and the weight that they stand for, float32 `[N, K]`."""
    outputs, inputs = weight.shape
    size = inputs if recipe.group_size == -1 else recipe.group_size
    groups = torch.arange(inputs) // size
    if recipe.ordered:
        groups = groups[torch.randperm(inputs, generator=torch.Generator().manual_seed(5))]
    most = 2**recipe.bits - 1
    count = int(groups.max()) + 1
    scales, zeros = torch.empty(count, outputs), torch.empty(count, outputs, dtype=torch.long)
    codes = torch.empty(inputs, outputs, dtype=torch.long)
    for group in range(count):
        part = weight[:, groups == group].float().t()
        if recipe.symmetric:
            scale = part.abs().amax(0) * 2 / most
            zero = torch.full((outputs,), 2 ** (recipe.bits - 1))
        else:
            low, high = part.amin(0).clamp(max=0), part.amax(0).clamp(min=0)
            scale = (high - low) / most
            zero = (-low / scale).round().long()
        scale = scale.half().float()
        codes[groups == group] = (part / scale + zero).round().clamp(0, most).long()
        scales[group], zeros[group] = scale, zero
    dequantized = (scales[groups] * (codes - zeros[groups])).t().contiguous()
    stored = (zeros - recipe.subtracted) & most
    return {
        "qweight": pack(codes, recipe.bits),
        "scales": scales.half(),
        "qzeros": pack(stored.t(), recipe.bits).t().contiguous(),
        "g_idx": groups.to(torch.int32),
    }, dequantized


def tiny_quantized(target: Path, recipe: Recipe, name: str = "model.safetensors") -> tuple[Path, dict[str, Tensor]]:
    """The tiny Llama model as a legacy file, and the weights that it stands for, by name."""
    folder_with(target, tiny("llama"))
    weights = load_file(tiny("llama") / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for key, value in weights.items():
        layer = key.removesuffix(".weight")
        if layer.endswith("_proj"):
            parts, plain[key] = quantize(value, recipe)
            tensors |= {f"{layer}.{part}": tensor for part, tensor in parts.items()}
        else:
            tensors[key] = plain[key] = value
    save(tensors, target / name)
    return target / name, plain


def save(tensors: dict[str, Any], file: Path) -> None:
    if file.suffix == ".safetensors":
        save_file(tensors, file, metadata={"format": "pt"})
    else:
        torch.save(tensors, file)
