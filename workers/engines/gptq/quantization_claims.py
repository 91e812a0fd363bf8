"""The claims of a model's files and the configuration about its quantization, under the names of each tool."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from workers.engines.gptq.awq import LAYOUT
from workers.engines.gptq.params import GptqParams

_BITS = ("bits", "wbits", "w_bit")
_GROUP_SIZE = ("group_size", "groupsize", "q_group_size")
_ORDERED = ("desc_act", "act_order")
_FORMAT = ("checkpoint_format", "format")
_METHOD = ("quant_method", "method")
_OF_AUTOAWQ = "quant_config.json"
V1, V2 = "gptq", "gptq_v2"
"""Formats of zero points: minus one, and as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationClaim:
    """where: what a message calls the source of the claim. None: no claim."""

    where: str
    bits: int | None = None
    group_size: int | None = None
    desc_act: bool | None = None
    format: str | None = None


def quantization_claims(params: GptqParams, folder: Path, config: Any) -> list[QuantizationClaim]:
    """Read all claims. config: the model's; its `quantization_config` is read.

    Raises:
        ConfigError: two of them contradict each other, or the method is neither GPTQ nor AWQ.
    """
    claims = [QuantizationClaim(where="model_params", bits=params.wbits, group_size=params.group_size)]
    for name, values in _documents(folder, config):
        method = _first(values, _METHOD)
        if method not in (None, "gptq", "awq"):
            raise ConfigError(f"{name} has the method {method}: gptq and awq are loaded, try model_family: huggingface")
        layout = str(values.get("version") or LAYOUT).lower()
        if method == "awq" and layout != LAYOUT:
            raise ConfigError(f"{name} has AWQ's layout {layout}, which cannot be loaded: get the model as {LAYOUT}")
        claims.append(
            QuantizationClaim(
                where=name,
                bits=_first(values, _BITS),
                group_size=_first(values, _GROUP_SIZE),
                desc_act=_first(values, _ORDERED),
                format=V2 if method == "awq" else _first(values, _FORMAT),
            )
        )
    _check_agreement(claims)
    return claims


def _documents(folder: Path, config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    written = getattr(config, "quantization_config", None)
    if written is not None:
        yield "quantization_config of config.json", written if isinstance(written, Mapping) else written.to_dict()
    for file in filter(Path.exists, (folder / "quantize_config.json", folder / _OF_AUTOAWQ)):
        try:
            values = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read ({type(error).__name__}): correct or remove it") from error
        if not isinstance(values, Mapping):
            raise ConfigError(f"{file} must hold a mapping: correct or remove it")
        yield file.name, {**values, "quant_method": "awq"} if file.name == _OF_AUTOAWQ else values


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _check_agreement(claims: list[QuantizationClaim]) -> None:
    for name in ("bits", "group_size"):
        values = [(each.where, getattr(each, name)) for each in claims if getattr(each, name) is not None]
        for where, value in values[1:]:
            if value != values[0][1]:
                raise ConfigError(
                    f"{name} is {values[0][1]} in {values[0][0]} and {value} in {where}: correct one of them"
                )
