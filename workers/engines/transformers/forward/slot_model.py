"""Forward passes over slots: rows that decode together, prompts in chunks beside them."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.engines.transformers.forward.adapters import AdapterPlan, running
from workers.engines.transformers.forward.ragged import RaggedBatches, Row
from workers.engines.transformers.forward.slot_cache import SlotTensors, View
from workers.engines.transformers.loading.layout import CacheLayout
from workers.engines.transformers.loading.model import LoadedModel

MAX_PADDING = 1.25  # of a group of prompt chunks, padded rows to real ones: more is cheaper in two passes
MAX_FILLING = 2  # rows of a decoding pass to those that count: beyond, gathering the cache is cheaper than the gaps


class SlotModel:
    """A model whose cache is cut into slots. One thread at a time. ragged: its layers take ragged batches."""

    def __init__(
        self, loaded: LoadedModel, layout: CacheLayout, *, slots: int, cells: int, ragged: bool = False
    ) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._windows = layout.windows
        self._adds_masks = loaded.attention == "eager"
        self._keeps_logits = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters
        self._no_mask = torch.zeros((1, 1, 1, 1), dtype=self._model.dtype, device=self._device)  # as it has a mask
        self._lengths = [0] * slots
        self.cache = SlotTensors(slots=slots, cells=cells, layers=layout.layers)
        self.ids = torch.zeros((slots, cells + 1), dtype=torch.long, device=self._device)
        """What has been read into each slot, `[slots, cells + 1]`, for processors that look at it."""
        self._ragged: RaggedBatches | None = None
        if ragged:
            (window,) = layout.windows.values()
            self._ragged = RaggedBatches(cells, window, dtype=self._model.dtype, device=self._device)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row]) -> list[Tensor]:
        """Run the rows. Returns the logits of each, `[1 or tokens, vocabulary]`, as the model gives them."""
        logits = self._in_groups(rows) if self._ragged is None else self._together(self._ragged, rows)
        for row in rows:
            self._lengths[row.slot] = row.position + len(row.tokens)
        return logits

    def used_cells(self) -> int:
        return sum(self._lengths)

    def move(self, source: int, target: int) -> None:
        self.copy(source, target, self._lengths[source])
        self.cut(source, 0)

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make the first tokens of a slot all that another one holds."""
        self.cut(target, 0)
        self.cache.copy(source, target, tokens)
        self.ids[target, :tokens] = self.ids[source, :tokens]
        self._lengths[target] = tokens

    @torch.inference_mode()
    def cut(self, slot: int, tokens: int) -> None:
        """Forget all but the first tokens of a slot."""
        self.cache.forget(slot, tokens, self._lengths[slot])
        self._lengths[slot] = min(tokens, self._lengths[slot])

    @torch.inference_mode()
    def forget_all(self) -> None:
        self.cache.forget_all()
        self._lengths = [0] * len(self._lengths)

    def _together(self, batches: RaggedBatches, rows: Sequence[Row]) -> list[Tensor]:
        batch = batches.of(rows)
        self.ids[batch.slots, batch.positions] = batch.ids
        self.cache.batch = batch
        adapters = [batch.adapters] if batch.last is None else [batch.adapters, batch.last.adapters]
        try:
            with running(AdapterPlan.of_rows(adapters, self._device, is_flat=True)):
                logits = self._model(
                    input_ids=batch.ids[None],
                    position_ids=batch.positions[None],
                    attention_mask=self._no_mask,
                    past_key_values=self.cache,
                    use_cache=True,
                ).logits[0]
        finally:
            self.cache.batch = None
        return [logits[tokens] for tokens in (batch.last or batch).rows]

    def _in_groups(self, rows: Sequence[Row]) -> list[Tensor]:
        logits: list[Tensor] = [torch.empty(0)] * len(rows)
        for group in _groups(rows):
            group_logits = self._forward([rows[index] for index in group])
            for index, each in zip(group, group_logits, strict=True):
                logits[index] = each
        return logits

    def _forward(self, rows: Sequence[Row]) -> list[Tensor]:
        if len(rows[0].tokens) == 1 and not rows[0].every_logit:
            rows, wanted = _without_gaps(rows)
        else:
            wanted = list(range(len(rows)))
        inputs = self._inputs(rows)
        if self._keeps_logits and not rows[0].every_logit:
            # by index, which copies: torch multiplies a slice of a batch row by row, and the weights with it
            inputs["logits_to_keep"] = torch.tensor([inputs["input_ids"].shape[1] - 1], device=self._device)
        with running(AdapterPlan.of_rows([[row.adapters for row in rows]], self._device, is_flat=False)):
            logits = self._model(**inputs, past_key_values=self.cache, use_cache=True).logits
        if rows[0].every_logit:
            return list(logits)
        return [logits[index, -1:] for index in wanted]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Pad rows on the left, so that the last token of each is the last of its row."""
        width = max(len(row.tokens) for row in rows)
        length = max(row.position + len(row.tokens) for row in rows)
        spare = self.cache.spare_cell
        tokens, cells, positions = [], [], []
        for row in rows:
            padding = width - len(row.tokens)
            places = range(row.position, row.position + len(row.tokens))
            tokens.append([0] * padding + list(row.tokens))
            cells.append([spare] * padding + (list(places) if row.tokens else []))
            positions.append([0] * padding + list(places))
        read = torch.tensor([tokens, cells, positions], device=self._device)
        ids, where, at = read[0], read[1], read[2]
        view = View.of([row.slot for row in rows], where, length)
        self.cache.view = view
        self.ids[view.slots[:, None], where] = ids
        return {"input_ids": ids, "position_ids": at, "attention_mask": self._masks(at, length)}

    def _masks(self, positions: Tensor, length: int) -> Any:
        """`[rows, 1, tokens, length]`: what each token may look at; by kind of layer where there are several."""
        keys = torch.arange(length, device=self._device)
        masks = {kind: self._mask(positions, keys, window) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _mask(self, positions: Tensor, keys: Tensor, window: int | None) -> Tensor:
        mask = keys <= positions[:, None, :, None]
        if window is not None:
            mask &= keys > positions[:, None, :, None] - window
        if not self._adds_masks:
            return mask
        dtype = self._model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _groups(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Yield the rows that share a forward pass: those of one token; prompts of about the same length; and of the rows
    that want every logit, the equally long ones.
    """
    single = [index for index, row in enumerate(rows) if len(row.tokens) == 1 and not row.every_logit]
    if single:
        yield single
    for width in sorted({len(row.tokens) for row in rows if row.every_logit}):
        yield [index for index, row in enumerate(rows) if row.every_logit and len(row.tokens) == width]
    prompts = [index for index, row in enumerate(rows) if len(row.tokens) > 1 and not row.every_logit]
    group: list[int] = []
    real = 0
    for index in sorted(prompts, key=lambda index: len(rows[index].tokens)):
        width = len(rows[index].tokens)
        if group and width * (len(group) + 1) > MAX_PADDING * (real + width):
            yield sorted(group)
            group, real = [], 0
        group.append(index)
        real += width
    if group:
        yield sorted(group)


def _without_gaps(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Fill the slots between with empty rows, so that the cache is read in place. Returns also where each row is."""
    first, last = rows[0].slot, rows[-1].slot
    if last - first + 1 > MAX_FILLING * len(rows):
        return list(rows), list(range(len(rows)))
    filled = [Row(slot, (), 0) for slot in range(first, last + 1)]
    for row in rows:
        filled[row.slot - first] = row
    return filled, [row.slot - first for row in rows]
