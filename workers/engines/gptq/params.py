"""`model_params` of the gptq_llama family that are its own; the rest is the huggingface family's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.errors import ConfigError

BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqParams:
    """wbits, group_size: of the quantization; None = what the model's files say, -1 = one group per column.
    device: None = the first GPU that torch sees, else the CPU. backend: the kernel of gptqmodel on a GPU.
    cuda_visible_devices: None = as `worker.gpus` says. others: for the huggingface family.
    """

    wbits: int | None = None
    group_size: int | None = None
    device: str | None = None
    backend: str = "auto"
    cuda_visible_devices: str | None = None
    others: Mapping[str, Any]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "GptqParams":
        """Raises ConfigError with the key and what was expected."""
        given = {key: raw[key] for key in _READERS if raw.get(key) is not None}
        if "device" in given and raw.get("device_map") is not None:
            raise ConfigError("model_params.device and model_params.device_map mean the same: keep one of them")
        own: dict[str, Any] = {key: _READERS[key](value) for key, value in given.items()}
        return cls(**own, others={key: value for key, value in raw.items() if key not in _READERS})

    def show_devices(self, gpus: str | None) -> None:
        """To be called before torch looks for GPUs, which it does once. gpus: `worker.gpus`."""
        if self.cuda_visible_devices is None:
            return
        if gpus is not None and gpus != self.cuda_visible_devices:
            raise ConfigError(
                f"model_params.cuda_visible_devices is {self.cuda_visible_devices} and worker.gpus is {gpus}: "
                "keep one of them"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = self.cuda_visible_devices

    @property
    def device_map(self) -> Any:
        """What `from_pretrained` gets. Raises ConfigError where the device is not here."""
        if self.others.get("device_map") is not None:
            return self.others["device_map"]
        device = torch.device(self.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"model_params.device is {device}, and torch sees {torch.cuda.device_count()} GPUs here: "
                "correct it, or leave it out"
            )
        return {"": str(device)}


def _bits(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in BITS:
        raise ConfigError(f"model_params.wbits must be one of {', '.join(map(str, BITS))}, not {value!r}")
    return value


def _group_size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or (value != -1 and value < 1):
        raise ConfigError(f"model_params.group_size must be a whole number of at least 1, or -1, not {value!r}")
    return value


def _device(value: Any) -> str:
    try:
        device = torch.device(value) if isinstance(value, str) else torch.device("cuda", value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"model_params.device must be cpu, cuda or cuda:N, not {value!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"model_params.device must be cpu, cuda or cuda:N, not {value!r}")
    return str(device)


def _backend(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError("model_params.backend must name a kernel of gptqmodel such as auto, marlin or exllama_v2")
    return value


def _visible(value: Any) -> str:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ConfigError(f"model_params.cuda_visible_devices must be devices such as 0 or 0,1, not {value!r}")
    return str(value)


_READERS = {
    "wbits": _bits,
    "group_size": _group_size,
    "device": _device,
    "backend": _backend,
    "cuda_visible_devices": _visible,
}
