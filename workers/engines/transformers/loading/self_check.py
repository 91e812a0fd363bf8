"""Has a model the same logits over slots as without? Checked at the start: no list of architectures is complete.

A model with an attention of its own kind (position biases, its own window) may ignore our masks and positions without
an error. The check runs two sequences of random tokens, in chunks, beside each other.
"""

import logging

import torch
from torch import Tensor

from workers.engines.transformers.forward.ragged import Row
from workers.engines.transformers.forward.slot_model import SlotModel
from workers.engines.transformers.loading.model import LoadedModel

MIN_TOKENS, MAX_TOKENS = 24, 520  # of the longer one: beyond common windows of small models, yet quick
_BEYOND_WINDOW = 8
_DIFFERENCE_FLOAT, _DIFFERENCE_HALF = 1e-3, 0.08  # of the logits' norms: rounding stays below, wrong masks far above

logger = logging.getLogger(__name__)


def disagreement(loaded: LoadedModel, slots: SlotModel) -> str | None:
    """Return what is wrong; None: nothing. Leaves the slots empty. With one slot, the second sequence is left out."""
    length = _probe_length(loaded, slots.cache.cells)
    generator = torch.Generator().manual_seed(0)
    vocabulary = loaded.text_config.vocab_size
    long = torch.randint(vocabulary, (length,), generator=generator).tolist()
    short = torch.randint(vocabulary, (max(2, length // 3),), generator=generator).tolist()
    sequences = {slots.cache.slots - 1: short, 0: long}
    try:
        over_slots = _over_slots(slots, sequences)
        worst = max(difference(over_slots[slot], loaded.last_logits(tokens)) for slot, tokens in sequences.items())
    except Exception as error:
        logger.debug("the failed check", exc_info=True)
        return f"{type(error).__name__} in a forward pass over slots"
    finally:
        slots.forget_all()
    allowed = _DIFFERENCE_FLOAT if loaded.model.dtype == torch.float32 else _DIFFERENCE_HALF
    return None if worst <= allowed else f"over slots its logits differ by {worst:.1%}"


def _probe_length(loaded: LoadedModel, cells: int) -> int:
    """Return a length beyond every window in the config, as far as that is quick."""
    values = [v for name, v in loaded.text_config.to_dict().items() if "window" in name and isinstance(v, int)]
    longest = max((value + _BEYOND_WINDOW for value in values if value + _BEYOND_WINDOW <= MAX_TOKENS), default=0)
    return min(max(MIN_TOKENS, longest), cells - 1)


def _over_slots(slots: SlotModel, sequences: dict[int, list[int]]) -> dict[int, Tensor]:
    """Prefill in two chunks each, then run one step together. Returns the last logits by slot."""
    for begin, end in ((0.0, 0.5), (0.5, 1.0)):
        rows = []
        for slot, tokens in sorted(sequences.items()):
            most = len(tokens) - 1
            start, stop = int(begin * most), int(end * most)
            if stop > start:
                rows.append(Row(slot, tokens[start:stop], start))
        slots.run(rows)
    last = [Row(slot, tokens[-1:], len(tokens) - 1) for slot, tokens in sorted(sequences.items())]
    return dict(zip(sorted(sequences), (logits[-1] for logits in slots.run(last)), strict=True))


def difference(logits: Tensor, expected: Tensor) -> float:
    """Return the difference of two rows of logits as a share of the norm."""
    logits, expected = (row.float() - row.float().mean() for row in (logits, expected))
    return float((logits - expected).norm() / expected.norm().clamp_min(1e-12))
