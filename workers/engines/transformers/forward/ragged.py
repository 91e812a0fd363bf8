"""Batches without padding: the tokens of all sequences in one row, and attention by sequence.

All but attention works on single tokens, so sequences that decode and chunks of prompts share each multiplication.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from workers.engines.transformers.forward.adapters import AdapterSet

BLOCK = 64  # tokens of a prompt that look back together, at nothing behind the last of them


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one slot at `position`, `position + 1`, ...; every_logit: of each of them, not of the last alone.

    adapters: LoRA adapters that change what is computed for them.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    every_logit: bool = False
    adapters: AdapterSet = ()

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return self.position + len(self.tokens)


@dataclass(frozen=True, slots=True)
class RowRun:
    """Single tokens of consecutive slots, which look at `length` cells. mask: `[tokens, 1, 1, length]`, added."""

    tokens: slice
    slots: slice
    length: int
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens of one slot that follow each other and look at `cells`. mask: `[tokens, cells]`, added."""

    tokens: slice
    slot: int
    cells: slice
    mask: Tensor


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """ids, slots, positions: `[tokens]`; a token's keys and values go into the cell of its position.

    rows: the tokens of each row that was asked for. last: the tokens whose logits are wanted, which are all that the
    last layer computes; kept: `[tokens of last]`, where they are in this batch. None: all of it.
    adapters: of each token.
    """

    ids: Tensor
    slots: Tensor
    positions: Tensor
    runs: Sequence[RowRun]
    blocks: Sequence[Block]
    rows: Sequence[slice]
    adapters: Sequence[AdapterSet] = ()
    last: "RaggedBatch | None" = None
    kept: Tensor | None = None

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """query: `[tokens, heads, dim]`; keys, values: `[slots, key heads, cells, dim]`; to `[tokens, heads * dim]`.

        Heads that share keys are rows of one head where there is one token, which spares a copy of all keys.
        """
        tokens, heads, dim = query.shape
        key_heads = keys.shape[1]
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        for run in self.runs:
            seen = scaled_dot_product_attention(
                query[run.tokens].view(-1, key_heads, heads // key_heads, dim),
                keys[run.slots, :, : run.length],
                values[run.slots, :, : run.length],
                attn_mask=run.mask,
                scale=scaling,
            )
            out[run.tokens] = seen.reshape(-1, heads, dim)
        for block in self.blocks:
            seen = scaled_dot_product_attention(
                query[block.tokens].transpose(0, 1)[None],
                keys[block.slot, None, :, block.cells],
                values[block.slot, None, :, block.cells],
                attn_mask=block.mask[None, None],
                scale=scaling,
                enable_gqa=heads != key_heads,
            )
            out[block.tokens] = seen[0].transpose(0, 1)
        return out.view(tokens, heads * dim)


class RaggedBatches:
    """Makes them. window: tokens that each looks back at, itself included; None: all."""

    def __init__(self, cells: int, window: int | None, *, dtype: torch.dtype, device: torch.device) -> None:
        self._cells = cells
        self._window = window
        self._dtype, self._device = dtype, device
        # every block's mask is a piece of this: its row i sees the columns up to `cells + i`, as far as the window goes
        columns = torch.arange(cells + BLOCK, device=device)
        last = cells + torch.arange(BLOCK, device=device)[:, None]
        self._stairs = self._added(self._visible(columns, last))

    def of(self, rows: Sequence[Row]) -> RaggedBatch:
        batch = self._of(rows)
        wanted = [
            row if row.every_logit else replace(row, tokens=row.tokens[-1:], position=row.end - 1) for row in rows
        ]
        if all(len(row.tokens) == len(other.tokens) for row, other in zip(rows, wanted, strict=True)):
            return batch
        last = self._of(wanted)
        kept = torch.empty_like(last.ids)
        for all_of_it, end in zip(batch.rows, last.rows, strict=True):
            size = end.stop - end.start
            kept[end] = torch.arange(all_of_it.stop - size, all_of_it.stop, device=self._device)
        return replace(batch, last=last, kept=kept)

    def _of(self, rows: Sequence[Row]) -> RaggedBatch:
        single = sorted((row for row in rows if len(row.tokens) == 1), key=lambda row: row.slot)
        ordered = [*single, *(row for row in rows if len(row.tokens) != 1)]
        starts: dict[int, int] = {}
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        adapters: list[AdapterSet] = []
        for row in ordered:
            starts[row.slot] = len(ids)
            ids += row.tokens
            slots += [row.slot] * len(row.tokens)
            positions += range(row.position, row.end)
            adapters += [row.adapters] * len(row.tokens)
        read = torch.tensor([ids, slots, positions], device=self._device)
        return RaggedBatch(
            ids=read[0],
            slots=read[1],
            positions=read[2],
            runs=list(self._runs(single, read[2])),
            blocks=[block for row in ordered[len(single) :] for block in self._blocks(row, starts[row.slot])],
            rows=[slice(starts[row.slot], starts[row.slot] + len(row.tokens)) for row in rows],
            adapters=adapters,
        )

    def _runs(self, rows: Sequence[Row], positions: Tensor) -> Iterator[RowRun]:
        start = 0
        for end in range(1, len(rows) + 1):
            if end < len(rows) and rows[end].slot == rows[end - 1].slot + 1:
                continue
            length = max(row.position for row in rows[start:end]) + 1
            columns = torch.arange(length, device=self._device)
            mask = self._added(self._visible(columns, positions[start:end, None, None, None]))
            yield RowRun(slice(start, end), slice(rows[start].slot, rows[end - 1].slot + 1), length, mask)
            start = end

    def _blocks(self, row: Row, start: int) -> Iterator[Block]:
        for offset in range(0, len(row.tokens), BLOCK):
            size = min(BLOCK, len(row.tokens) - offset)
            position = row.position + offset
            first = 0 if self._window is None else max(0, position + 1 - self._window)
            shift = self._cells - position
            mask = self._stairs[:size, shift + first : shift + position + size]
            tokens = slice(start + offset, start + offset + size)
            yield Block(tokens, row.slot, slice(first, position + size), mask)

    def _visible(self, columns: Tensor, last: Tensor) -> Tensor:
        visible = columns <= last
        return visible if self._window is None else visible & (columns > last - self._window)

    def _added(self, visible: Tensor) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(~visible, -torch.inf)
