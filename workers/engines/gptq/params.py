"""`model_params` of the gptq_llama family that are its own; the rest is the huggingface family's."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.errors import ConfigError
from workers.engines.shared.options import Check, checked, integer, text, wrong
from workers.engines.transformers.loading.model import check_devices

BITS = (2, 3, 4, 8)
_GONE = {
    "st_device": "use device",
    "safetensors": "the name of the file says it",
    "fuse_layers": "layers are fused where that changes nothing",
}
"""Keys of the original LLM API that have no meaning any more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqParams:
    """wbits, group_size: of the quantization; None = as the model's files have it, -1 = one group per column.
    device: None = the first GPU that torch sees, else the CPU. backend: the kernel of gptqmodel on a GPU.
    cuda_visible_devices: None = those of `worker.gpus`. others: for the huggingface family.
    """

    wbits: int | None = None
    group_size: int | None = None
    device: str | None = None
    backend: str = "auto"
    cuda_visible_devices: str | None = None
    others: Mapping[str, Any]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "GptqParams":
        """Raises ConfigError with the key and what was expected. A key that has lost its meaning is logged."""
        for key in filter(_GONE.get, raw):
            logger.warning("model_params.%s is ignored: %s", key, _GONE[key])
        own = checked("model_params", raw, _CHECKS)
        if "device" in own and raw.get("device_map") is not None:
            raise ConfigError("model_params.device and model_params.device_map mean the same: keep one of them")
        return cls(**own, others={key: value for key, value in raw.items() if key not in _CHECKS | _GONE})

    def show_devices(self, gpus: str | None) -> None:
        """Set the visible devices, before torch looks for GPUs, which it does once. gpus: `worker.gpus`."""
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
        """The argument of `from_pretrained`. Raises ConfigError where the device is missing."""
        if self.others.get("device_map") is not None:
            check_devices("model_params.device_map", self.others["device_map"])
            return self.others["device_map"]
        device = self.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        check_devices("model_params.device", device)
        return {"": device}


def _bits(key: str, value: Any) -> int:
    if integer(key, value) not in BITS:
        raise wrong(key, f"one of {', '.join(map(str, BITS))}", value)
    return int(value)


def _group_size(key: str, value: Any) -> int:
    if integer(key, value) != -1 and value < 1:
        raise wrong(key, "an integer of at least 1, or -1", value)
    return int(value)


def _device(key: str, value: Any) -> str:
    try:
        device = torch.device(value) if isinstance(value, str) else torch.device("cuda", value)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise wrong(key, "cpu, cuda or cuda:N", value)
    return str(device)


def _backend(key: str, value: Any) -> str:
    return text(key, value, "a kernel of gptqmodel such as auto, marlin or exllama_v2")


def _visible(key: str, value: Any) -> str:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise wrong(key, "devices such as 0 or 0,1", value)
    return str(value)


_CHECKS: dict[str, Check] = {
    "wbits": _bits,
    "group_size": _group_size,
    "device": _device,
    "backend": _backend,
    "cuda_visible_devices": _visible,
}
