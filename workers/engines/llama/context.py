"""The generation context: one KV stream per slot, and the decode of one batch over all of them."""

import logging
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from app.errors import EngineFailed, ModelUnavailable
from workers.engines.llama.adapters import AdapterSet
from workers.engines.llama.batch import TokenBatch
from workers.engines.llama.checkpoints import Checkpoints
from workers.engines.llama.library import library_log
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.shared.resources import usable_cpus

logger = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]

_WHOLE = -1  # from the first and to the last position


class MemoryKind(Enum):
    """Where a slot can be cut: anywhere, at checkpoints (`Checkpoints`), or nowhere."""

    WHOLE = auto()
    STATES = auto()
    FIXED = auto()


class Context:
    """`slots` KV streams of `cells_per_slot` cells. One thread at a time.

    Raises:
        ModelUnavailable: there is no memory for it; the message names the keys to make smaller.
    """

    def __init__(
        self,
        model: Model,
        params: LlamaModelParams,
        *,
        slots: int,
        cells_per_slot: int,
        max_rows: int,
        memory: MemoryKind = MemoryKind.WHOLE,
    ) -> None:
        self.slots = slots
        self._memory_kind = memory
        self._vocabulary_size = model.vocabulary.size
        self._adapters = model.adapters
        self._batch = TokenBatch(max_rows)
        settings = context_settings(params, cells=slots * cells_per_slot, sequences=slots, rows=max_rows)
        settings.kv_unified = False
        settings.swa_full = True  # layers with a window keep what is outside of it, too
        settings.type_k, settings.type_v = params.type_k, params.type_v
        settings.flash_attn_type = _flash_attention(params)
        self.pointer: Any = model.new_context(settings)
        if self.pointer is None:
            raise ModelUnavailable(
                f"llama.cpp cannot make {slots} slots of {cells_per_slot} cells ({library_log().last_errors()}): "
                "set a smaller model_params.n_ctx or worker.slots"
            )
        self._memory = llama_cpp.llama_get_memory(self.pointer)
        self._checkpoints = Checkpoints(self.pointer)

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
        self._copy_whole(source, target)
        self.forget(source)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first cells of a slot into an empty one."""
        self._copy_whole(source, target)
        self.cut(target, tokens)

    def cut(self, slot: int, tokens: int) -> None:
        """Forget all but the first cells. They are as many as `resumable` has returned.

        Raises:
            EngineFailed: llama.cpp does not hold exactly these cells afterwards.
        """
        if self._memory_kind is MemoryKind.STATES and tokens < self._length(slot):
            self._checkpoints.restore(slot, tokens)
        if not self.remove(slot, tokens) or self._length(slot) != tokens:
            raise EngineFailed(f"llama.cpp cannot cut the memory of slot {slot} to {tokens} tokens")

    def checkpoint(self, slot: int) -> None:
        """Make a checkpoint behind what the slot holds now."""
        self._checkpoints.save(slot, self._length(slot))

    def resumable(self, slot: int, tokens: int) -> int:
        """See `CheckpointCache.resumable`."""
        length = self._length(slot)
        return length if length <= tokens else self._checkpoints.longest(slot, tokens)

    def try_cut(self, slot: int, tokens: int) -> bool:
        """Copy a slot to the next one and cut the copy. Return whether both hold what they should; if not, the copy is
        whole or empty.
        """
        length = self._length(slot)
        self._copy_whole(slot, slot + 1)
        is_cut = self.remove(slot + 1, tokens) and self._holds(slot + 1, tokens)
        return is_cut and self._holds(slot, length)

    def remove(self, slot: int, tokens: int) -> bool:
        """Forget all but the first cells, as far as that is possible. Return whether it was."""
        removed: bool = llama_cpp.llama_memory_seq_rm(self._memory, slot, tokens, _WHOLE)
        return removed

    def forget(self, slot: int) -> None:
        self._checkpoints.drop(slot)
        if not llama_cpp.llama_memory_seq_rm(self._memory, slot, _WHOLE, _WHOLE):
            raise EngineFailed(f"llama.cpp cannot empty the memory of slot {slot}")

    def forget_all(self) -> None:
        self._checkpoints.clear()
        llama_cpp.llama_memory_clear(self._memory, False)

    def used_cells(self) -> int:
        return sum(map(self._length, range(self.slots)))

    def close(self) -> None:
        if self.pointer is not None:
            self._adapters.forget_context(self.pointer)
            llama_cpp.llama_free(self.pointer)
            self.pointer = None

    def _copy_whole(self, source: int, target: int) -> None:
        self.forget(target)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, _WHOLE, _WHOLE)
        self._checkpoints.copy(source, target)

    def _length(self, slot: int) -> int:
        """Return how many tokens of a slot have been computed."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def _holds(self, slot: int, tokens: int) -> bool:
        """Does the slot hold each of its first tokens, and no others? A state holds only the last one."""
        first: int = llama_cpp.llama_memory_seq_pos_min(self._memory, slot)
        return first == 0 and self._length(slot) == tokens


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
