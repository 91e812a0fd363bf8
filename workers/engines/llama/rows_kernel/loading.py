"""Makes ggml multiply by quantized weights with kernels of this project: loads rows.c, where it is built and right.

Its results must be those of ggml's own kernel for one row to the bit, else it is not used: a text must not depend on
which of the two a row went through.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from workers.engines.llama.rows_kernel.build import library_file
from workers.engines.shared.short_lived_thread import in_short_lived_thread

_CPU = 0  # `enum ggml_backend_dev_type`
_TRIALS = ((1, 32, 2), (3, 64, 7), (2, 32, 17))  # blocks of an output's weights, outputs, rows
_THREADS = 2

logger = logging.getLogger(__name__)


def enable(ggml: ctypes.CDLL, file: Path | None = None) -> frozenset[int]:
    """Have ggml use the kernels from now on; log in one line which are not used, and why.

    To be called before a model is loaded, and only where there is no GPU: beside one, ggml would keep products here
    that it otherwise sends there.

    Args:
        ggml: the library that llama-cpp-python has loaded.
        file: of the kernels; None = where `build` puts it.

    Returns:
        The types of weights for which all kernels are used: `enum ggml_type`.
    """
    file = library_file() if file is None else file
    try:
        module = _module(file)
        right = in_short_lived_thread(lambda: _right_ones(ggml, module))
        load = ggml.ggml_backend_load
        load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
        if right and not load(os.fsencode(file)):
            raise RuntimeError(f"ggml does not accept {file.name}")
    except (OSError, AttributeError, RuntimeError) as error:
        logger.info("quantized weights are multiplied row by row: %s", error)
        return frozenset()
    return right


def types(module: ctypes.CDLL) -> Iterator[tuple[int, int]]:
    """Yield number and `enum ggml_type` of each kernel."""
    index = 0
    while (ggml_type := module.rows_type(index)) >= 0:
        yield index, ggml_type
        index += 1


def type_name(ggml: ctypes.CDLL, ggml_type: int) -> str:
    """Return ggml's name of a type."""
    name = ggml.ggml_type_name
    name.argtypes, name.restype = [ctypes.c_int], ctypes.c_char_p
    return str(name(ggml_type).decode())


def differing(
    ggml: ctypes.CDLL, module: ctypes.CDLL, index: int, blocks: int, outputs: int, rows: int, threads: int = _THREADS
) -> int:
    """Count the results of a product of `rows` x `outputs` that are not ggml's to the bit.

    index: of the kernel. blocks: of an output's weights.

    Raises:
        RuntimeError: there is no CPU backend, or no memory.
    """
    init, free = ggml.ggml_backend_init_by_type, ggml.ggml_backend_free
    init.argtypes, init.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    compare = module.rows_that_differ
    compare.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 3, ctypes.c_int]
    compare.restype = ctypes.c_int64
    backend = init(_CPU, None)
    if not backend:
        raise RuntimeError("ggml has no backend for the CPU")
    try:
        count = int(compare(backend, index, blocks, outputs, rows, threads))
    finally:
        free(backend)
    if count < 0:
        raise RuntimeError("no memory for a trial")
    return count


def _module(file: Path) -> ctypes.CDLL:
    """Raises OSError or AttributeError for what is no such library; RuntimeError where it cannot run."""
    if not file.exists():
        raise RuntimeError("the kernels of several rows were not built")
    module = ctypes.CDLL(str(file))
    if not module.rows_supported():
        raise RuntimeError("this CPU has no AVX-512 with VNNI")
    return module


def _right_ones(ggml: ctypes.CDLL, module: ctypes.CDLL) -> frozenset[int]:
    """Try every kernel, leave out those whose results differ, and return the types of the others."""
    of_types, wrong = set(), set()
    for index, ggml_type in types(module):
        worst = sum(differing(ggml, module, index, *trial) for trial in _TRIALS)
        if worst:
            module.rows_leave_out(index)
            wrong.add(ggml_type)
            name = type_name(ggml, ggml_type)
            logger.info(
                "%s weights are multiplied row by row: the kernel differs from ggml's in %d results", name, worst
            )
        of_types.add(ggml_type)
    return frozenset(of_types - wrong)
