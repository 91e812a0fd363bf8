"""What only a worker can check, without loading a model: `python -m workers.diagnosis`, a part of `llm-api doctor`.

It prints one line of JSON, a list of findings (`app.config.finding`). Memory, files, hub, CPU and GPU are looked at as
the worker of this machine would use them.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from app.config.finding import Finding, fault, ok, warning
from app.config.loader import load_config
from app.config.settings import Config
from app.errors import ConfigError, StartupError
from workers.engines.registry import load_family
from workers.engines.shared.resources import available_memory_bytes
from workers.models.progress import readable_size
from workers.models.source import model_file_of

_NVIDIA_DEVICE = Path("/dev/nvidia0")


def findings(config: Config) -> Iterator[Finding]:
    """Look at the family, the model's files or the hub, the memory, and what the family says of CPU and GPU."""
    try:
        family = load_family(config.model_family)
    except ConfigError as error:
        yield fault("family", error.detail)
        return
    yield ok("family", f"{config.model_family} is installed")
    try:
        family.check(config)
    except StartupError as error:
        yield fault("model", error.detail)
    else:
        yield from _of_model(config)
    yield from family.diagnose(config)
    if config.worker.gpus is not None and not _NVIDIA_DEVICE.exists():
        cure = "remove worker.gpus, or give the container its GPUs (docker-compose.gpu.yaml)"
        yield warning("gpu", f"worker.gpus is {config.worker.gpus}, and this machine shows no NVIDIA GPU", cure)


def _of_model(config: Config) -> Iterator[Finding]:
    try:
        path = model_file_of(config)
    except StartupError as error:
        yield fault("model", error.detail)
        return
    if path is None:
        yield from _of_hub(config)
        return
    size = _size_bytes(path)
    yield ok("model", f"{path} is there: {readable_size(size)}")
    yield _memory(size)


def _of_hub(config: Config) -> Iterator[Finding]:
    """Ask the hub for the repository, as a download would begin."""
    if "repo_id" not in config.setup_params:  # a family that loads no file
        return
    from workers.models.hub_check import check_hub

    try:
        yield ok("hub", check_hub(config.setup_params))
    except StartupError as error:
        yield fault("hub", error.detail)


def _memory(model_bytes: int) -> Finding:
    free, total = available_memory_bytes(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"the model's files have {readable_size(model_bytes)}; {readable_size(free)} of memory are free"
    cure = "choose a smaller model or stronger quantization (docs/families/index.md)"
    if model_bytes > total:
        return fault("memory", f"{text}, of {readable_size(total)}", cure)
    if model_bytes > free:
        return warning("memory", text, f"stop other programs, raise the container's limit, or {cure}")
    return ok("memory", text)


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    sys.stdout.write(json.dumps([asdict(finding) for finding in findings(load_config())]) + "\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads of a native library must not delay the exit
