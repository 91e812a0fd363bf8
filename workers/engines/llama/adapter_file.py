"""Looks at the file of an adapter before llama.cpp does, which ends the process over a key of another type."""

from pathlib import Path
from typing import Any

from app.errors import ModelUnavailable
from workers.engines.shared.loaded_adapters import ACTIVATED
from workers.models.ggml.formats import is_old_adapter

_MAGIC = b"GGUF"
_TEXTS = ("general.type", "general.architecture", "adapter.type")
_ALPHA = "adapter.lora.alpha"
_INVOCATION = "adapter.alora.invocation_tokens"
_FIX = "give an adapter of this model"


def check_adapter_file(path: Path, where: str) -> None:
    """Raises ModelUnavailable: the file is missing, or no adapter in GGUF; `where` names it."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelUnavailable(f"{where}: {path} cannot be read: {error.strerror or error}") from error
    if is_old_adapter(magic):
        reason = "an adapter of the format before GGUF (GGLA), which llama.cpp no longer reads"
        raise ModelUnavailable(
            f"{where}: {path} is {reason}: convert the original adapter with convert_lora_to_gguf.py"
        )
    if magic != _MAGIC:
        raise ModelUnavailable(f"{where}: {path} is no GGUF file: convert the adapter with convert_lora_to_gguf.py")
    if (fault := _fault(path)) is not None:
        raise ModelUnavailable(f"{where}: {path} {fault}")


def _fault(path: Path) -> str | None:
    """Return what is wrong with an adapter, and what to do."""
    # The import costs 0.2 s, and only adapters need it.
    from gguf import GGUFReader, GGUFValueType

    try:
        fields: dict[str, Any] = GGUFReader(path).fields
    except Exception as error:  # of numpy, mostly: the file is cut short, or its numbers make no sense
        return f"is damaged ({type(error).__name__}): {_FIX}"
    if _INVOCATION in fields:
        return f"is {ACTIVATED}"
    for key in _TEXTS:
        if key in fields and fields[key].types != [GGUFValueType.STRING]:
            return f"is no adapter, its {key} is no text: {_FIX}"
    if _ALPHA in fields and fields[_ALPHA].types != [GGUFValueType.FLOAT32]:
        return f"is no adapter, its {_ALPHA} is no number of 32 bits: {_FIX}"
    return None
