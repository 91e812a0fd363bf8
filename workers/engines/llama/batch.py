"""The rows of one `llama_decode`, as numpy arrays that llama.cpp reads in place."""

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np


class TokenBatch:
    """Filled whole arrays at a time: element-wise writes through ctypes cost more than the rest of a step."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._sequences = np.zeros(capacity, dtype=np.int32)
        self._wants_output = np.zeros(capacity, dtype=np.int8)
        self._sequence_counts = np.ones(capacity, dtype=np.int32)
        starts = self._sequences.ctypes.data + self._sequences.itemsize * np.arange(capacity, dtype=np.uintp)
        self._sequence_pointers = starts.astype(np.uintp)
        self._struct = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._sequence_counts, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._wants_output, ctypes.c_int8),
        )

    def fill(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wants_output: Sequence[bool],
    ) -> Any:
        """llama.cpp's batch of these rows; valid until the next call."""
        rows = len(tokens)
        assert 0 < rows <= self.capacity
        self._tokens[:rows] = tokens
        self._positions[:rows] = positions
        self._sequences[:rows] = sequences
        self._wants_output[:rows] = wants_output
        self._struct.n_tokens = rows
        return self._struct


def _pointer(array: "np.ndarray[Any, Any]", element: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(element))
