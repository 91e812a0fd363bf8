"""The tensors of a quantized checkpoint: the layers they form, and how these were quantized.

A layer of K inputs and N outputs, quantized with B bits in groups of G inputs:
    qweight  int32 [K * B / 32, N]            codes, B bits each, packed along the inputs
    scales   float [ceil(K / G), N]
    qzeros   int32 [ceil(K / G), N * B / 32]  zero points, packed along the outputs; format v1 (`gptq`): minus one
    g_idx    int32 [K]                        the group of each input; legacy files may have none, or only zeros

A weight is scale * (code - zero point). Source: AutoGPTQ's and GPTQ-for-LLaMa's `QuantLinear.pack`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from app.errors import ConfigError, ModelUnavailable

WORD_BITS = 32
_USUAL_GROUP_SIZES = (128, 32, 64, 16, 256, 512, 1024)
_PARTS = ("qweight", "scales", "qzeros")


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """name: of the module, `model.layers.0.self_attn.q_proj` for example."""

    name: str
    qweight: Tensor
    scales: Tensor
    qzeros: Tensor
    g_idx: Tensor | None

    @property
    def outputs(self) -> int:
        return self.qweight.shape[1]

    @property
    def groups(self) -> int:
        return self.scales.shape[0]

    def inputs(self, bits: int) -> int:
        return self.qweight.shape[0] * WORD_BITS // bits


def read(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return all tensors of safetensors files, by name. Raises ModelUnavailable."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelUnavailable(f"{file} cannot be read ({error}): it is damaged, get it anew") from error
    return tensors


def quantized_layers(tensors: Mapping[str, Tensor]) -> list[QuantizedLayer]:
    """Return the layers. Raises ModelUnavailable where there are none, or where a layer lacks a tensor."""
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    if not names:
        raise ModelUnavailable(
            "no tensor of the model is quantized with GPTQ (none ends with .qweight): use huggingface"
        )
    for name in names:
        missing = [part for part in _PARTS if f"{name}.{part}" not in tensors]
        if missing:
            hint = ": it is of a GPTQ-for-LLaMa before April 2023" if f"{name}.zeros" in tensors else ""
            raise ModelUnavailable(f"{name} has no {missing[0]}{hint}: quantize the model anew")
    return [
        QuantizedLayer(
            name,
            qweight=tensors[f"{name}.qweight"],
            scales=tensors[f"{name}.scales"],
            qzeros=tensors[f"{name}.qzeros"],
            g_idx=tensors.get(f"{name}.g_idx"),
        )
        for name in sorted(names)
    ]


def bits_of(layers: Iterable[QuantizedLayer]) -> int:
    """Return as many bits as fit the zero points of a group into its words.

    Raises:
        ModelUnavailable: layers differ, or a layer's shapes contradict each other.
    """
    widths: dict[int, str] = {}
    for layer in layers:
        if layer.scales.shape[1] != layer.outputs or layer.qzeros.shape[0] != layer.groups:
            raise ModelUnavailable(
                f"{layer.name}: qweight has {layer.outputs} columns, scales {tuple(layer.scales.shape)}, "
                f"qzeros {tuple(layer.qzeros.shape)}: these do not belong together, get the model anew"
            )
        widths.setdefault(layer.qzeros.shape[1] * WORD_BITS // layer.outputs, layer.name)
    if len(widths) > 1:
        (one, first), (two, second) = list(widths.items())[:2]
        raise ModelUnavailable(f"{first} has {one} bits and {second} has {two}: mixed widths cannot be loaded")
    return next(iter(widths))


def group_size_of(layers: Iterable[QuantizedLayer], bits: int, claimed: int | None) -> int:
    """Return the claimed group size, or one that fits the tensors; -1: one group per column.

    Raises:
        ConfigError: the tensors contradict the claim; the message does not name the source of the claim.
    """
    shapes = {(layer.inputs(bits), layer.groups) for layer in layers}
    if claimed is not None and _fits(claimed, shapes):
        return claimed
    if all(groups == 1 for _, groups in shapes):
        size = -1
    else:
        exact = min(inputs // groups for inputs, groups in shapes)
        candidates = [size for size in (*_USUAL_GROUP_SIZES, exact) if _fits(size, shapes)]
        if not candidates:
            raise ModelUnavailable("the layers are quantized in groups of different sizes: this cannot be loaded")
        size = candidates[0]
    if claimed is not None:
        raise ConfigError(f"group_size is {claimed}, and the weights are in groups of {size}")
    return size


def _fits(size: int, shapes: Iterable[tuple[int, int]]) -> bool:
    return all(groups == (1 if size == -1 else ceil(inputs / size)) for inputs, groups in shapes)


def order_of(layer: QuantizedLayer, bits: int, group_size: int) -> tuple[Tensor, bool]:
    """Return the group of each input, `[K]` int32, and whether they are in another order than the inputs.

    Legacy files have no `g_idx`, or nothing but zeros in it, for the plain order.
    """
    inputs = layer.inputs(bits)
    size = inputs if group_size == -1 else group_size
    plain = (torch.arange(inputs) // size).to(torch.int32)
    if layer.g_idx is None or not layer.g_idx.any():
        return plain, False
    if layer.g_idx.shape != (inputs,) or not 0 <= int(layer.g_idx.min()) <= int(layer.g_idx.max()) < layer.groups:
        raise ModelUnavailable(
            f"{layer.name}: g_idx names {int(layer.g_idx.max()) + 1} groups of {layer.g_idx.shape[0]} inputs, "
            f"and there are {layer.groups} of {inputs}: get the model anew"
        )
    groups = layer.g_idx.to(torch.int32)
    return groups, not torch.equal(groups, plain)


def zero_codes(qzeros: Tensor, bits: int) -> Tensor:
    """Return zero points as they are stored, `[groups, N]` int32. 3 bits may lie across two words."""
    stream = ((qzeros[..., None] >> torch.arange(WORD_BITS, dtype=torch.int32)) & 1).flatten(1)
    weights = 2 ** torch.arange(bits, dtype=torch.int32)
    return (stream.reshape(len(qzeros), -1, bits) * weights).sum(-1, dtype=torch.int32)


def packed(codes: Tensor, bits: int) -> Tensor:
    """The reverse of `zero_codes`."""
    stream = ((codes[..., None] >> torch.arange(bits, dtype=torch.int32)) & 1).flatten(1)
    words = (stream.reshape(len(codes), -1, WORD_BITS).long() << torch.arange(WORD_BITS)).sum(-1)
    return torch.where(words < 2**31, words, words - 2**32).to(torch.int32)


def all_zero_points_are(layers: Iterable[QuantizedLayer], bits: int, code: int) -> bool:
    return all(bool((zero_codes(layer.qzeros, bits) == code).all()) for layer in layers)


def version_2(qzeros: Tensor, bits: int) -> Tensor:
    """Return zero points of format v1 in format v2, each by itself.

    A stored 15 stands for 0; a plain addition would carry into its neighbour.
    """
    return packed((zero_codes(qzeros, bits) + 1) & (2**bits - 1), bits)
