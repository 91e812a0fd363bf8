"""Makes ggml multiply several rows at once by weights of type Q4_1: loads rows.c, where it is built and right.

Its results must be those of ggml's own kernel to the bit, else it is not used: a text must not depend on which of the
two a row went through.
"""

import ctypes
import logging
import os
from pathlib import Path

from workers.engines.llama.rows_kernel.build import library_file
from workers.engines.shared.short_lived_thread import in_short_lived_thread

_CPU = 0  # `enum ggml_backend_dev_type`
_TRIALS = ((64, 32, 2), (576, 96, 7), (1536, 64, 33))  # inputs, outputs, rows
_THREADS = 2

logger = logging.getLogger(__name__)


def enable(ggml: ctypes.CDLL, file: Path | None = None) -> bool:
    """Have ggml use the kernel from now on; else log in one line why not.

    To be called before a model is loaded, and only where there is no GPU: beside one, ggml would keep products here
    that it otherwise sends there.

    Args:
        ggml: the library that llama-cpp-python has loaded.
        file: of the kernel; None = where `build` puts it.
    """
    file = library_file() if file is None else file
    reason = _rejection_reason(ggml, file)
    if reason is None:
        load = ggml.ggml_backend_load
        load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
        if load(os.fsencode(file)):
            return True
        reason = f"ggml does not accept {file.name}"
    logger.info("weights of type Q4_1 are multiplied row by row: %s", reason)
    return False


def differing(
    ggml: ctypes.CDLL, module: ctypes.CDLL, inputs: int, outputs: int, rows: int, threads: int = _THREADS
) -> int:
    """Count the results of a product of `rows` x `outputs` that are not ggml's to the bit.

    Raises:
        RuntimeError: there is no CPU backend, or no memory.
    """
    init, free = ggml.ggml_backend_init_by_type, ggml.ggml_backend_free
    init.argtypes, init.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    compare = module.rows_that_differ
    compare.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_int]
    compare.restype = ctypes.c_int64
    backend = init(_CPU, None)
    if not backend:
        raise RuntimeError("ggml has no backend for the CPU")
    try:
        count = int(compare(backend, inputs, outputs, rows, threads))
    finally:
        free(backend)
    if count < 0:
        raise RuntimeError("no memory for a trial")
    return count


def _rejection_reason(ggml: ctypes.CDLL, file: Path) -> str | None:
    if not file.exists():
        return "the kernel of several rows was not built"
    try:
        module = ctypes.CDLL(str(file))
        if not module.rows_supported():
            return "this CPU has no AVX-512 with VNNI"
        worst = in_short_lived_thread(lambda: sum(differing(ggml, module, *trial) for trial in _TRIALS))
    except (OSError, AttributeError, RuntimeError) as error:
        return str(error)
    return f"the kernel of several rows differs from ggml's in {worst} results of a trial" if worst else None
