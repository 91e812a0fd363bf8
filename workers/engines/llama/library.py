"""llama.cpp's library beyond llama-cpp-python's functions: its log, its devices, and short calls that keep the GIL.

`library_log().last_errors()` returns the lines that llama.cpp wrote at error level since `clear()`: the reason why a
file did not load is written nowhere else.
"""

import ctypes
import logging
import os
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp

from workers.engines.llama.rows_kernel import loading as rows_kernel

logger = logging.getLogger("llama.cpp")

# private: llama-cpp-python has no names for ggml's functions, and no public one for the library that holds them
ggml_library = llama_cpp.llama_cpp._lib

# `enum ggml_log_level` of ggml.h; the table in llama_cpp._logger is that of an older version
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5  # the rest of the line before

# An assertion of ggml writes one line and ends the process. Before that it would start a debugger for a backtrace.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")


class LibraryLog:
    """llama.cpp's log: through `logging` when verbose; the error lines are kept in any case."""

    def __init__(self) -> None:
        self.verbose = False
        self._errors: deque[str] = deque(maxlen=8)
        self._level = logging.INFO
        self._callback = llama_cpp.llama_log_callback(self._receive)  # llama.cpp keeps the pointer, so it must live
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def clear(self) -> None:
        self._errors.clear()

    def last_errors(self) -> str:
        """Return the first error line since `clear()`, which names the cause (later ones: that a caller failed)."""
        return next(iter(self._errors), "llama.cpp gives no reason")

    def _receive(self, level: int, text: bytes, _user_data: Any) -> None:
        self._level = self._level if level == _CONTINUED else _LEVELS.get(level, logging.DEBUG)
        line = text.decode("utf-8", "replace").strip()
        if self._level == logging.ERROR and line:
            self._errors.append(line)
        if self.verbose and line:
            logger.log(self._level, "%s", line)


@cache
def library_log() -> LibraryLog:
    """Start the library, once per process: its log callback is global."""
    log = LibraryLog()
    _load_backend_modules()
    rows_kernel_types()
    llama_cpp.llama_backend_init()
    return log


@cache
def rows_kernel_types() -> frozenset[int]:
    """Return the types of weights that `rows_kernel` multiplies (`enum ggml_type`); it starts with `library_log`."""
    return frozenset() if free_gpu_bytes() else rows_kernel.enable(ggml_library)


def _load_backend_modules() -> None:
    """Load ggml's code for the CPU and the GPUs of this machine, where it was built as modules.

    The images hold one module for each generation of CPU; `llama_backend_init` would look for them beside the python
    program. A library that was built for one machine (`make run`) has no modules, and the call does nothing.
    """
    _call_of_ggml("ggml_backend_load_all_from_path", [ctypes.c_char_p], None)(
        os.fsencode(Path(ggml_library._name).parent)
    )


def row_bytes(ggml_type: int, values: int) -> int | None:
    """Return the bytes of so many values in this type; None where they do not fill the type's blocks."""
    if values % _block_size(ggml_type):
        return None
    return int(_row_size(ggml_type, values))


def free_gpu_bytes() -> int:
    """Return the free memory of all GPUs that ggml sees; 0 without one."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    free_in_all = 0
    for index in range(_device_count()):
        device = _device(index)
        if _device_type(device) == _GPU:
            _device_memory(device, ctypes.byref(free), ctypes.byref(total))
            free_in_all += free.value
    return free_in_all


def _call_of_ggml(name: str, argument_types: list[Any], result_type: Any) -> Any:
    function = getattr(ggml_library, name)
    function.argtypes, function.restype = argument_types, result_type
    return function


_GPU = 1  # `enum ggml_backend_dev_type`; one that shares the machine's memory is another type
_block_size = _call_of_ggml("ggml_blck_size", [ctypes.c_int], ctypes.c_int64)
_row_size = _call_of_ggml("ggml_row_size", [ctypes.c_int, ctypes.c_int64], ctypes.c_size_t)
_device_count = _call_of_ggml("ggml_backend_dev_count", [], ctypes.c_size_t)
_device = _call_of_ggml("ggml_backend_dev_get", [ctypes.c_size_t], ctypes.c_void_p)
_device_type = _call_of_ggml("ggml_backend_dev_type", [ctypes.c_void_p], ctypes.c_int)
_device_memory = _call_of_ggml(
    "ggml_backend_dev_memory",
    [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)],
    None,
)


def _short_call(name: str, argument_types: list[Any], result_type: Any) -> Any:
    """Return a function that keeps the GIL. A step makes a hundred calls of microseconds; if each released the GIL, any
    other running thread of the worker could take it for 5 ms (`sys.getswitchinterval`) each time.
    """
    function = getattr(_library_with_gil, name)
    function.argtypes, function.restype = argument_types, result_type
    return function


_library_with_gil = ctypes.PyDLL(ggml_library._name)

sampler_sample = _short_call("llama_sampler_sample", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32], ctypes.c_int32)
vocab_is_eog = _short_call("llama_vocab_is_eog", [ctypes.c_void_p, ctypes.c_int32], ctypes.c_bool)
token_to_piece = _short_call(
    "llama_token_to_piece",
    [ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool],
    ctypes.c_int32,
)
