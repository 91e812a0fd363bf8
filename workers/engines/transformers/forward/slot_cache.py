"""The keys and values of all slots: two tensors a layer, `[slots, heads, cells + 1, dim]`, written and read in place.

The last cell of a slot is spare: what has no place of its own (padding, rows that only fill a gap) is written there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from workers.engines.transformers.forward.ragged import RaggedBatch


@dataclass(frozen=True, slots=True)
class View:
    """What one forward pass sees of the cache.

    slots: `[rows]`, where each row of the batch lies. span: the same where they are consecutive, which reads without a
    copy. cells: `[rows, tokens]`, where the keys and values of each token go. length: cells that are read.
    """

    slots: Tensor
    span: slice | None
    cells: Tensor
    length: int

    @classmethod
    def of(cls, slots: Sequence[int], cells: Tensor, length: int) -> "View":
        consecutive = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        span = slice(slots[0], slots[0] + len(slots)) if consecutive else None
        return cls(torch.tensor(slots, device=cells.device), span, cells, length)


class SlotTensors(Cache):  # type: ignore[misc]  # transformers is not followed by the type checker
    """Handed to the model as its `past_key_values`; `view` or `batch` is set before each forward pass."""

    def __init__(self, *, slots: int, cells: int, layers: int) -> None:
        self.view: View | None = None
        self.batch: RaggedBatch | None = None
        self.slots, self.cells = slots, cells
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])

    @property
    def spare_cell(self) -> int:
        return self.cells

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cells of a slot into another."""
        for part in self._parts():
            part[target, :, :length] = part[source, :, :length]

    def forget(self, slot: int, start: int, end: int) -> None:
        """Zero these cells: NaN would reach the sums of other tokens even where it is masked."""
        for part in self._parts():
            part[slot, :, start:end] = 0

    def forget_all(self) -> None:
        for part in self._parts():
            part.zero_()

    def _parts(self) -> list[Tensor]:
        return [part for layer in self.layers if layer.is_initialized for part in (layer.keys, layer.values)]


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    is_sliding = False

    def __init__(self, cache: SlotTensors) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = self._zeros(key_states)
        self.values = self._zeros(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the states, `[rows, heads, tokens, dim]`, as the view asks. Returns `[rows, heads, length, dim]`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._exchange(self.keys, key_states), self._exchange(self.values, value_states)

    def write(self, batch: RaggedBatch, key_states: Tensor, value_states: Tensor) -> None:
        """The states (`[tokens, heads, dim]`) of a ragged batch."""
        if not self.is_initialized:
            self.lazy_initialization(key_states.transpose(0, 1)[None], value_states.transpose(0, 1)[None])
        self.keys[batch.slots, :, batch.positions] = key_states
        self.values[batch.slots, :, batch.positions] = value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._view.length, 0

    def get_seq_length(self) -> int:
        """Models call it when they are given no positions, which the slot model always gives."""
        return self._view.length

    def get_max_length(self) -> int:
        return self._cache.cells

    @property
    def _view(self) -> View:
        assert self._cache.view is not None
        return self._cache.view

    def _zeros(self, like: Tensor) -> Tensor:
        shape = (self._cache.slots, like.shape[1], self._cache.cells + 1, like.shape[3])
        return torch.zeros(shape, dtype=like.dtype, device=like.device)

    def _exchange(self, stored: Tensor, states: Tensor) -> Tensor:
        view = self._view
        slots, cells = view.slots.to(stored.device), view.cells.to(stored.device)
        stored[slots[:, None], :, cells] = states.transpose(1, 2)
        if view.span is not None:
            return stored[view.span, :, : view.length]
        return stored[:, :, : view.length].index_select(0, slots)
