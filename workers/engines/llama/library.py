"""The one door to llama.cpp: its log, its backend, and the short calls that keep the GIL.

`library_log.last_errors()` gives the lines llama.cpp wrote at error level since `clear()`: that is the only place where
it says why a file did not load.
"""

import ctypes
import logging
import os
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp

from workers.engines.llama.rows_kernel import build
from workers.engines.llama.rows_kernel.loading import use_rows

logger = logging.getLogger("llama.cpp")

# `enum ggml_log_level` of ggml.h; the table in llama_cpp._logger is that of an older version
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5  # the rest of the line before


class LibraryLog:
    """llama.cpp's log: shown through `logging` when verbose, else only its error lines are remembered."""

    def __init__(self) -> None:
        self.verbose = False
        self._errors: deque[str] = deque(maxlen=8)
        self._level = logging.INFO
        self._callback = llama_cpp.llama_log_callback(self._receive)  # llama.cpp keeps the pointer, so it must live
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def clear(self) -> None:
        self._errors.clear()

    def last_errors(self) -> str:
        """The first error line since `clear()`, which names the cause (later ones only say that a caller failed)."""
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
    """Starts the library, once per process: its log callback is global."""
    log = LibraryLog()
    _load_backend_modules()
    if not free_gpu_bytes():
        use_rows(build.library_file())
    llama_cpp.llama_backend_init()
    return log


def _load_backend_modules() -> None:
    """ggml's code for the CPU and the GPUs at hand, where it was built as modules: in the images, which hold one module
    for each generation of CPU. `llama_backend_init` would seek them beside the python program. A library built for one
    machine (`make run`) has none and needs none: the call finds nothing to do."""
    library = llama_cpp.llama_cpp._lib
    load = library.ggml_backend_load_all_from_path
    load.argtypes, load.restype = [ctypes.c_char_p], None
    load(os.fsencode(Path(library._name).parent))


def row_bytes(ggml_type: int, values: int) -> int | None:
    """Of so many values in this type; None where it goes in blocks that they do not fill."""
    if values % _block_size(ggml_type):
        return None
    return int(_row_size(ggml_type, values))


def free_gpu_bytes() -> int:
    """Of all GPUs that ggml sees; 0 without one."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    found = 0
    for index in range(_device_count()):
        device = _device(index)
        if _device_type(device) == _GPU:
            _device_memory(device, ctypes.byref(free), ctypes.byref(total))
            found += free.value
    return found


def _call_of_ggml(name: str, argument_types: list[Any], result_type: Any) -> Any:
    """What llama-cpp-python has no name for."""
    function = getattr(llama_cpp.llama_cpp._lib, name)
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
    """A call that keeps the GIL. A step makes a hundred calls of microseconds; were the GIL given up for each, every
    other running thread of the worker could take it for 5 ms (`sys.getswitchinterval`) each time."""
    function = getattr(_library_with_gil, name)
    function.argtypes, function.restype = argument_types, result_type
    return function


_library_with_gil = ctypes.PyDLL(llama_cpp.llama_cpp._lib._name)

sampler_sample = _short_call("llama_sampler_sample", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32], ctypes.c_int32)
vocab_is_eog = _short_call("llama_vocab_is_eog", [ctypes.c_void_p, ctypes.c_int32], ctypes.c_bool)
token_to_piece = _short_call(
    "llama_token_to_piece",
    [ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool],
    ctypes.c_int32,
)
