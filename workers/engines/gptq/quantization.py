"""How a model was quantized: read off its tensors, and compared with the claims of its files and the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.errors import ConfigError, ModelUnavailable
from workers.engines.gptq.params import BITS
from workers.engines.gptq.quantization_claims import V1, V2, QuantizationClaim
from workers.engines.gptq.tensors import (
    QuantizedLayer,
    all_zero_points_are,
    bits_of,
    group_size_of,
    order_of,
    quantized_layers,
    version_2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """group_size -1: one group per column. desc_act: groups are not in the order of the inputs. sym: each zero point is
    the middle. layers: names of the quantized modules.
    """

    bits: int
    group_size: int
    desc_act: bool
    sym: bool
    layers: tuple[str, ...]

    def as_config(self, backend: str) -> dict[str, Any]:
        """Return what transformers calls a `GPTQConfig`."""
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.desc_act,
            "sym": self.sym,
            "format": V2,
            "backend": backend,
            "modules_in_block_to_quantize": [list(self.layers)],
        }


def reconcile(
    tensors: dict[str, Tensor], claims: Sequence[QuantizationClaim], linear_shapes: Mapping[str, tuple[int, int]]
) -> Quantization:
    """Complete the tensors in place: every layer gets its `g_idx`, zero points become format v2.

    linear_shapes: inputs and outputs of the model's linear modules as its config makes them, by name.

    Raises:
        ConfigError: a claim contradicts the tensors; one line with both numbers.
        ModelUnavailable: the tensors make no sense.
    """
    layers = quantized_layers(tensors)
    bits = _bits(layers, claims)
    _check_shapes(layers, bits, linear_shapes)
    group_size = _group_size(layers, bits, claims)
    desc_act = _reconcile_order(tensors, layers, bits, group_size, claims)
    sym = _reconcile_zero_points(tensors, layers, bits, claims)
    return Quantization(
        bits=bits,
        group_size=group_size,
        desc_act=desc_act,
        sym=sym,
        layers=tuple(layer.name for layer in layers),
    )


def _bits(layers: Sequence[QuantizedLayer], claims: Sequence[QuantizationClaim]) -> int:
    bits = bits_of(layers)
    for each in claims:
        if each.bits is not None and each.bits != bits:
            name = "wbits" if each.where == "model_params" else "bits"
            raise ConfigError(f"{each.where}: {name} is {each.bits}, and the weights have {bits} bits: correct it")
    if bits not in BITS:
        raise ModelUnavailable(f"the weights have {bits} bits: {', '.join(map(str, BITS))} can be loaded")
    return bits


def _check_shapes(layers: Sequence[QuantizedLayer], bits: int, linear_shapes: Mapping[str, tuple[int, int]]) -> None:
    for layer in layers:
        expected = linear_shapes.get(layer.name)
        if expected is None:
            raise ConfigError(f"config.json makes a model without {layer.name}, which the weights have: correct it")
        shape = (layer.inputs(bits), layer.outputs)
        if shape != expected:
            raise ConfigError(
                f"{layer.name} has {shape[0]} inputs and {shape[1]} outputs in the weights, "
                f"{expected[0]} and {expected[1]} in config.json: these are of different models"
            )


def _group_size(layers: Sequence[QuantizedLayer], bits: int, claims: Sequence[QuantizationClaim]) -> int:
    where, value = next(((each.where, each.group_size) for each in claims if each.group_size is not None), ("", None))
    try:
        return group_size_of(layers, bits, value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.detail}: correct it") from error


def _reconcile_order(
    tensors: dict[str, Tensor],
    layers: Sequence[QuantizedLayer],
    bits: int,
    group_size: int,
    claims: Sequence[QuantizationClaim],
) -> bool:
    """Give every layer its `g_idx`. Returns whether groups are in another order than the inputs."""
    reordered = False
    for layer in layers:
        groups, differs = order_of(layer, bits, group_size)
        tensors[f"{layer.name}.g_idx"] = groups
        reordered = reordered or differs
    several = any(layer.groups > 1 for layer in layers)
    claimed = next((each.where for each in claims if each.desc_act), None)
    if claimed and several and all(layer.g_idx is None for layer in layers):
        raise ConfigError(
            f"{claimed}: desc_act is true, and the weights have no g_idx, without which the order is lost: "
            "set it to false if they were quantized so, or get the model anew"
        )
    return reordered


def _reconcile_zero_points(
    tensors: dict[str, Tensor], layers: Sequence[QuantizedLayer], bits: int, claims: Sequence[QuantizationClaim]
) -> bool:
    """Bring the zero points into format v2. Returns whether they are symmetric."""
    version = next((each.format for each in claims if each.format is not None), None)
    if version not in (None, V1, V2):
        raise ConfigError(f"the format {version} cannot be loaded: get the model in the format {V1}")
    middle = 2 ** (bits - 1)
    if version is None:  # in v1 the middle is stored minus one
        version = V2 if all_zero_points_are(layers, bits, middle) else V1
    sym = all_zero_points_are(layers, bits, middle if version == V2 else middle - 1)
    if version == V1:
        for layer in layers:
            tensors[f"{layer.name}.qzeros"] = version_2(layer.qzeros, bits)
    return sym
