"""What of this machine llama.cpp uses, as it was compiled, and whether it accepts the model's file."""

from collections.abc import Iterator
from pathlib import Path

import llama_cpp

from app.config.finding import Finding, fault, ok, warning
from app.config.settings import Config
from app.errors import StartupError
from workers.engines.llama.file_trial import fault_of
from workers.engines.llama.library import ggml_library, library_log, rows_kernel_types
from workers.engines.llama.model import gguf_file
from workers.engines.llama.rows_kernel.build import library_file
from workers.engines.llama.rows_kernel.loading import type_name
from workers.models.source import model_file_of

_CPU_FLAGS = Path("/proc/cpuinfo")
_NVIDIA_DEVICE = Path("/dev/nvidia0")
# what Linux calls a set of instructions, and llama.cpp
_SETS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "amx_int8": "AMX_INT8"}
_COMPILE = "compile it for this machine: `make clean run`; the images choose by themselves"
_BUILD_KERNEL = "run `.venv/bin/python workers/engines/llama/rows_kernel/build.py`, which needs a C compiler"


def findings(config: Config) -> Iterator[Finding]:
    yield from _of_file(config)
    library_log()  # loads what was built as modules
    yield from _of_cpu()
    yield from _of_gpu(config)


def _of_file(config: Config) -> Iterator[Finding]:
    """Load the file as the worker does before it loads the weights."""
    try:
        path = model_file_of(config)
        reason = None if path is None else fault_of(gguf_file(path), config.model_params)
    except StartupError:
        return  # the checks before this one say it
    if reason is not None:
        yield fault("model", reason)


def _of_cpu() -> Iterator[Finding]:
    flags = _cpu_flags()
    compiled = llama_cpp.llama_print_system_info().decode()
    has = [name for flag, name in _SETS.items() if flag in flags]
    missing = [name for name in has if f"{name} = 1" not in compiled]
    if missing:
        yield warning("cpu", f"llama.cpp does not use {', '.join(missing)} of this CPU", _COMPILE)
    else:
        yield ok("cpu", f"llama.cpp uses {', '.join(has) or 'what this CPU has'}")
    if not library_file().exists():
        text = "the kernels of several rows are not built: several clients at once are served more slowly"
        yield warning("cpu", text, _BUILD_KERNEL)
    elif types := rows_kernel_types():
        names = ", ".join(sorted(type_name(ggml_library, number) for number in types))
        yield ok("cpu", f"the kernels of several rows are on, for {names}")
    elif "avx512_vnni" in flags and not _has_gpu():
        yield warning("cpu", "the kernels of several rows are off: their results differ from ggml's", _BUILD_KERNEL)
    else:
        yield ok("cpu", "the kernels of several rows are off: they are for CPUs with AVX-512 and VNNI, without a GPU")


def _of_gpu(config: Config) -> Iterator[Finding]:
    if _has_gpu():
        yield ok("gpu", "llama.cpp uses a GPU")
    elif _NVIDIA_DEVICE.exists():
        cure = "use docker-compose.gpu.yaml, or compile it: `CMAKE_ARGS=-DGGML_CUDA=ON make clean run`"
        yield warning("gpu", "this machine has an NVIDIA GPU, and llama.cpp was compiled without CUDA", cure)
    elif config.model_params.get("n_gpu_layers"):
        cure = "remove n_gpu_layers, or use an image for GPUs (docs/containers.md)"
        yield warning("gpu", "model_params.n_gpu_layers is set, and llama.cpp finds no GPU", cure)
    else:
        yield ok("gpu", "there is none; the CPU computes")


def _has_gpu() -> bool:
    return bool(llama_cpp.llama_supports_gpu_offload())


def _cpu_flags() -> frozenset[str]:
    try:
        lines = _CPU_FLAGS.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
