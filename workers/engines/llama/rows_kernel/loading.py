"""Has ggml multiply several rows at once by weights of type Q4_1: the module rows.c, where it was built and is right.

It has to say what ggml's own kernel says to the bit, or it is not used: texts must not depend on which of them a row
went through. Only where there is no GPU: beside one, ggml would keep products here that it else sends there.
"""

import ctypes
import logging
import os
from pathlib import Path

import llama_cpp

from workers.engines.shared.short_lived_thread import in_short_lived_thread

_CPU = 0  # `enum ggml_backend_dev_type`
_TRIALS = ((64, 32, 2), (576, 96, 7), (1536, 64, 33))  # inputs, outputs, rows
_THREADS = 2

logger = logging.getLogger(__name__)


def use_rows(file: Path) -> bool:
    """Before a model is loaded; says in one line why not."""
    reason = _refusal(file)
    if reason is None:
        load = llama_cpp.llama_cpp._lib.ggml_backend_load
        load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
        if load(os.fsencode(file)):
            return True
        reason = f"ggml does not take {file.name}"
    logger.info("weights of type Q4_1 are multiplied row by row: %s", reason)
    return False


def differing(module: ctypes.CDLL, inputs: int, outputs: int, rows: int, threads: int = _THREADS) -> int:
    """How many of a product's `rows` x `outputs` results are not ggml's to the bit.

    Raises RuntimeError: there is no CPU backend, or no memory.
    """
    library = llama_cpp.llama_cpp._lib
    init, free = library.ggml_backend_init_by_type, library.ggml_backend_free
    init.argtypes, init.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    compare = module.rows_that_differ
    compare.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_int]
    compare.restype = ctypes.c_int64
    backend = init(_CPU, None)
    if not backend:
        raise RuntimeError("ggml has no backend for the CPU")
    try:
        found = int(compare(backend, inputs, outputs, rows, threads))
    finally:
        free(backend)
    if found < 0:
        raise RuntimeError("no memory for a trial")
    return found


def _refusal(file: Path) -> str | None:
    if not file.exists():
        return "the kernel of several rows was not built"
    try:
        module = ctypes.CDLL(str(file))
        if not module.rows_supported():
            return "this CPU has no AVX-512 with VNNI"
        worst = in_short_lived_thread(lambda: sum(differing(module, *trial) for trial in _TRIALS))
    except (OSError, AttributeError, RuntimeError) as error:
        return str(error)
    return f"the kernel of several rows differs from ggml's in {worst} results of a trial" if worst else None
