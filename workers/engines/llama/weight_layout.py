"""Whether llama.cpp rearranges a file's weights while it loads them ("repack"), for kernels of several rows of its own.

For Q4_K these are slower than what multiplies the weights as they lie in the file: `rows_kernel` up to 15 rows, ggml's
"tiled" kernels with more (decisions 0052 and 0077). The setting is one for the whole file.
"""

import ctypes
from pathlib import Path
from typing import Any

from workers.engines.llama.library import ggml_library, rows_kernel_types

_Q4_0, _Q2_K, _Q4_K, _IQ4_NL, _MXFP4 = 2, 10, 12, 20, 39  # `enum ggml_type`
_GAIN_FROM_IT = {_Q4_0, _Q2_K, _IQ4_NL, _MXFP4}  # ggml has no faster kernel of several rows for them
_CPU_FLAGS = Path("/proc/cpuinfo")
_EXPERTS = b"_exps."  # each is multiplied by few rows, where rearranged weights are faster


class _Parameters(ctypes.Structure):
    """`struct gguf_init_params` of gguf.h."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


def is_rearranged(path: Path) -> bool:
    """Return what `llama_model_params.use_extra_bufts` should be for this GGUF file."""
    if _Q4_K not in rows_kernel_types() or "amx_int8" in _CPU_FLAGS.read_text():
        return True  # ggml multiplies by AMX only what it has rearranged
    header = _call("gguf_init_from_file", [ctypes.c_char_p, _Parameters], ctypes.c_void_p)(
        str(path).encode(), _Parameters(no_alloc=True)
    )
    if not header:
        return True  # llama.cpp gives the reason when it loads the file
    try:
        return _is_rearranged(header)
    finally:
        _call("gguf_free", [ctypes.c_void_p], None)(header)


def _is_rearranged(header: int) -> bool:
    of_tensor = [ctypes.c_void_p, ctypes.c_int64]
    name = _call("gguf_get_tensor_name", of_tensor, ctypes.c_char_p)
    kind = _call("gguf_get_tensor_type", of_tensor, ctypes.c_int)
    size = _call("gguf_get_tensor_size", of_tensor, ctypes.c_size_t)
    gaining = losing = 0
    for index in range(_call("gguf_get_n_tensors", [ctypes.c_void_p], ctypes.c_int64)(header)):
        if kind(header, index) in _GAIN_FROM_IT or (kind(header, index) == _Q4_K and _EXPERTS in name(header, index)):
            gaining += size(header, index)
        elif kind(header, index) == _Q4_K:
            losing += size(header, index)
    return bool(gaining >= losing)


def _call(name: str, argument_types: list[Any], result_type: Any) -> Any:
    function = getattr(ggml_library, name)
    function.argtypes, function.restype = argument_types, result_type
    return function
