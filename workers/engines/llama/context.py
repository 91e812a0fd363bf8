"""The generation context: one KV stream per slot, and the decode of one batch over all of them."""

import logging
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from app.errors import EngineFailed, ModelUnavailable
from workers.engines.llama.adapters import AdapterSet
from workers.engines.llama.batch import TokenBatch
from workers.engines.llama.library import library_log
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.shared.resources import usable_cpus

logger = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]

_WHOLE = -1  # from the first and to the last position


class Context:
    """`slots` KV streams of `cells_per_slot` cells. One thread at a time.

    Raises:
        ModelUnavailable: there is no memory for it; the message names the keys to make smaller.
    """

    def __init__(
        self, model: Model, params: LlamaModelParams, *, slots: int, cells_per_slot: int, max_rows: int
    ) -> None:
        self.slots = slots
        self._vocabulary_size = model.vocabulary.size
        self._adapters = model.adapters
        self._batch = TokenBatch(max_rows)
        settings = context_settings(params, cells=slots * cells_per_slot, sequences=slots, rows=max_rows)
        settings.kv_unified = False
        settings.type_k, settings.type_v = params.type_k, params.type_v
        settings.flash_attn_type = _flash_attention(params)
        self.pointer: Any = model.new_context(settings)
        if self.pointer is None:
            raise ModelUnavailable(
                f"llama.cpp cannot make {slots} slots of {cells_per_slot} cells ({library_log().last_errors()}): "
                "set a smaller model_params.n_ctx or worker.slots"
            )
        self._memory = llama_cpp.llama_get_memory(self.pointer)

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        wants_logits: Sequence[bool],
        adapters: AdapterSet = (),
    ) -> Logits:
        """Run the rows with these adapters. Returns `[rows that want logits, vocabulary]`, valid until the next call.

        Raises:
            EngineFailed: llama.cpp rejected the batch.
        """
        library_log().clear()
        batch = self._batch.fill(tokens, positions, slots, wants_logits)
        with self._adapters.active(self.pointer, adapters):
            status = llama_cpp.llama_decode(self.pointer, batch)
        if status != 0:
            raise EngineFailed(f"llama_decode failed with status {status} ({library_log().last_errors()})")
        outputs = sum(wants_logits)
        if not outputs:
            return np.empty((0, self._vocabulary_size), dtype=np.float32)
        logits = llama_cpp.llama_get_logits(self.pointer)  # waits for the computation, so it releases the GIL
        return np.ctypeslib.as_array(logits, shape=(outputs, self._vocabulary_size))

    def move(self, source: int, target: int) -> None:
        """Move a whole sequence: streams cannot share a part."""
        self.forget(target)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, _WHOLE, _WHOLE)
        self.forget(source)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first cells of a slot into an empty one."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, _WHOLE, _WHOLE)
        self.cut(target, tokens)

    def cut(self, slot: int, tokens: int) -> None:
        """Forget all but the first cells."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, tokens, _WHOLE)

    def forget(self, slot: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, slot, _WHOLE, _WHOLE)

    def forget_all(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)

    def used_cells(self) -> int:
        return sum(self._cells_of(slot) for slot in range(self.slots))

    def close(self) -> None:
        if self.pointer is not None:
            self._adapters.forget_context(self.pointer)
            llama_cpp.llama_free(self.pointer)
            self.pointer = None

    def _cells_of(self, slot: int) -> int:
        last: int = llama_cpp.llama_memory_seq_pos_max(self._memory, slot)
        return 0 if last < 0 else last - int(llama_cpp.llama_memory_seq_pos_min(self._memory, slot)) + 1


def _flash_attention(params: LlamaModelParams) -> int:
    """Return llama.cpp's setting. Quantized values need it on; left to itself, llama.cpp might switch it off."""
    if params.flash_attn is None and not params.type_v.is_quantized:
        return int(llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO)
    is_off = params.flash_attn is False
    return int(llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED if is_off else llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED)


def context_settings(params: LlamaModelParams, *, cells: int, sequences: int, rows: int) -> Any:
    """Return the settings that all contexts of a model share. `n_batch == n_ubatch`: one batch is one computation."""
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_seq_max = cells, sequences
    settings.n_batch = settings.n_ubatch = rows
    settings.n_threads = settings.n_threads_batch = params.n_threads or usable_cpus()
    settings.rope_freq_base, settings.rope_freq_scale = params.rope_freq_base, params.rope_freq_scale
    settings.no_perf = True
    return settings
