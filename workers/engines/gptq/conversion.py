"""Converts a checkpoint that torch has pickled to safetensors, once.

<models_dir>/gptq_llama_<digest>/
    .lock                  held by the one process that converts, while the others wait
    draft.safetensors      being written, or left by a conversion that was interrupted; never read
    model.safetensors      the draft, renamed when it was whole
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.errors import ModelUnavailable
from workers.models.folder import ModelFolder
from workers.models.progress import ReportProgress

PICKLED = (".pt", ".pth", ".bin")

_NESTED = ("state_dict", "model", "model_state_dict")  # where some tools put the weights inside what they save


def converted(file: Path, models_dir: Path, report: ReportProgress) -> Path:
    """Return the safetensors file of a pickled one; make it where there is none for this size and time.

    Raises:
        ModelUnavailable: it holds more than tensors, or is damaged, or the disk is full.
    """
    stat = file.stat()
    key = ("converted", str(file.resolve()), str(stat.st_size), str(stat.st_mtime_ns))
    folder = ModelFolder.of(models_dir, "gptq_llama", key, label=file.name)
    target = folder.path / "model.safetensors"
    if not target.exists():
        with folder.alone(report):
            if not target.exists():  # else another process converted it while we waited
                report(f"converting {file.name} to safetensors", None)
                draft = folder.path / "draft.safetensors"
                tensors = _tensors(file)
                _save(tensors, draft)
                draft.replace(target)
    return target


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelUnavailable(
            f"{file} is damaged, or holds more than tensors, which could be any code: get the model as safetensors"
        ) from error
    except Exception as error:  # torch's zip and pickle readers raise many kinds
        raise ModelUnavailable(f"{file} cannot be read ({type(error).__name__}): it is damaged, get it anew") from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if content else {}
    if not tensors:
        raise ModelUnavailable(f"{file} holds no tensors by name: it is no checkpoint of a model")
    return tensors


def _save(tensors: Mapping[str, Tensor], target: Path) -> None:
    """Write the tensors; those that share memory are copied, as safetensors rejects them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone(memory_format=torch.contiguous_format) if address in seen else tensor.contiguous()
        seen.add(address)
    save_file(separate, target, metadata={"format": "pt"})
    with target.open("rb+") as written:
        os.fsync(written.fileno())
