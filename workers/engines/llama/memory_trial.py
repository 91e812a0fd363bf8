"""Finds out what a model's memory can do, and how large it is, by two tokens in a small context."""

from dataclasses import dataclass

import llama_cpp
import numpy as np

from app.errors import EngineFailed
from workers.engines.llama.checkpoints import restore_state, saved_state
from workers.engines.llama.context import Context, MemoryKind
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams

_CELLS = 16  # of each of the two slots


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """cell_bytes: of one token, in all layers. state_bytes: of one slot, whatever it holds."""

    kind: MemoryKind
    cell_bytes: int
    state_bytes: int


def try_memory(model: Model, params: LlamaModelParams) -> MemoryUse:
    """Compute two tokens, and copy, cut and restore them.

    Raises:
        EngineFailed: llama.cpp cannot compute a token.
        ModelUnavailable: there is no memory for 32 cells.
    """
    context = Context(model, params, slots=2, cells_per_slot=_CELLS, max_rows=2)
    try:
        return _try(context, model.vocabulary.bos or 0)
    finally:
        context.close()


def _try(context: Context, token: int) -> MemoryUse:
    context.decode([token], [0], [0], [False])
    first = _bytes(context, 0)
    state = saved_state(context.pointer, 0)
    after = context.decode([token], [1], [0], [True]).copy()
    cell_bytes = _bytes(context, 0) - first
    if context.try_cut(0, 1):
        return MemoryUse(MemoryKind.WHOLE, cell_bytes, 0)
    try:
        restore_state(context.pointer, 1, state)
        context.remove(1, 1)  # the keys of hybrid models
        is_same = np.array_equal(context.decode([token], [1], [1], [True]), after, equal_nan=True)
    except EngineFailed:
        is_same = False
    return MemoryUse(MemoryKind.STATES if is_same else MemoryKind.FIXED, cell_bytes, len(state))


def _bytes(context: Context, slot: int) -> int:
    return int(llama_cpp.llama_state_seq_get_size(context.pointer, slot))
