"""Reads LoRA adapters in peft's format: a folder with `adapter_config.json` and `adapter_model.safetensors`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.config.adapters import Adapter
from app.errors import ModelUnavailable
from app.jobs.job import AdapterUse
from workers.engines.shared.loaded_adapters import ACTIVATED, loaded_adapters
from workers.engines.transformers.forward.adapters import AdapterHook, AdapterSet, Change, LoadedAdapter, place_of
from workers.engines.transformers.loading.model import LoadedModel

_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_UNSUPPORTED = ("use_dora", "modules_to_save", "lora_bias", "alpha_pattern", "use_qalora")
_INVOCATION = "alora_invocation_tokens"
_SHOWN = 3


class TransformersAdapters:
    """The adapters of one model. Any thread may use it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._by_key: dict[tuple[str, str], LoadedAdapter] = {}
        self._hooks: dict[nn.Module, AdapterHook] = {}

    def load(self, adapter: Adapter, folder: Path, where: str) -> None:
        """Load an adapter for requests. where: what names it, for errors. Raises ModelUnavailable."""
        config, tensors = _config(folder, where), _tensors(folder, where)
        model = self._loaded.model
        changes: dict[str, Change] = {}
        for key in [key for key in tensors if key.endswith(_DOWN)]:
            name = key.removesuffix(_DOWN).removeprefix(_PREFIX)
            down, up = tensors.pop(key), tensors.pop(key.removesuffix(_DOWN) + _UP, None)
            if up is None:
                raise ModelUnavailable(f"{where}: {folder} has no {_UP} of {name}: fetch it again")
            self._check_shape(name, down, up, f"{where}: {folder}")
            scale = config["lora_alpha"] / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
            options = {"dtype": model.dtype, "device": self._loaded.device}
            changes[name] = Change(down.to(**options), (up.float() * scale).to(**options))
        if tensors:
            shown = ", ".join(sorted(tensors)[:_SHOWN])
            raise ModelUnavailable(
                f"{where}: {folder} has tensors that are not supported ({shown}): use another adapter"
            )
        for name in changes:
            self._hook(name)
        self._by_key[adapter.name, adapter.version] = LoadedAdapter(changes)

    def unload(self, name: str, version: str) -> None:
        """Forget an adapter. Requests that have it already keep it until they end."""
        self._by_key.pop((name, version), None)
        for hook in list(self._hooks.values()):
            hook.forget()

    def of(self, uses: Sequence[AdapterUse]) -> AdapterSet:
        """Return the adapters that a request uses. Raises InvalidRequest."""
        return loaded_adapters(uses, self._by_key)

    def _hook(self, name: str) -> None:
        module, part = place_of(self._loaded.model, name)
        if module not in self._hooks:
            self._hooks[module] = AdapterHook()
            module.register_forward_hook(self._hooks[module])
        self._hooks[module].targets = self._hooks[module].targets | {name: part}
        self._hooks[module].forget()

    def _check_shape(self, name: str, down: Tensor, up: Tensor, what: str) -> None:
        try:
            module, part = place_of(self._loaded.model, name)
        except AttributeError:
            raise ModelUnavailable(f"{what} changes {name}, which this model does not have: use another") from None
        inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
        if hasattr(module, "nx") and hasattr(module, "nf"):  # transformers' Conv1D
            inputs, outputs = module.nx, module.nf
        if not isinstance(inputs, int) or not isinstance(outputs, int):
            raise ModelUnavailable(f"{what} changes {name}, which is no linear layer: use another adapter")
        outputs = len(range(outputs)[part])
        if down.ndim != 2 or up.shape != (outputs, len(down)) or down.shape[1] != inputs:
            raise ModelUnavailable(f"{what} does not fit {name} ({inputs} to {outputs}): give an adapter of this model")


def _config(folder: Path, where: str) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ModelUnavailable(f"{where}: {folder}/adapter_config.json cannot be read: {reason}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ModelUnavailable(f"{where}: {folder} is no LoRA adapter of peft: its peft_type must be LORA")
    if config.get(_INVOCATION):
        raise ModelUnavailable(f"{where}: {folder} is {ACTIVATED}")
    unsupported = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise ModelUnavailable(f"{where}: {folder} has {', '.join(unsupported)}, which is not supported: use another")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelUnavailable(f"{where}: {folder}/adapter_config.json has no number as lora_alpha: fetch it again")
    return config


def _tensors(folder: Path, where: str) -> dict[str, Tensor]:
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelUnavailable(f"{where}: there is no {file}: an adapter_model.bin can be saved again with peft")
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelUnavailable(f"{where}: {file} is damaged: fetch it again") from error
    return tensors
