"""The next tokens of a whole batch, chosen on the device; the host waits for it once per step.

A row's scores go through transformers' processors as in `generate()`. The draw is that of `torch.multinomial`, which
divides by exponential noise and takes the largest, with noise from a generator of the row's own: the same seed gives
the same text alone, in a batch, and in `generate()`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import TopKLogitsWarper

from app.errors import InvalidRequest
from workers.engines.transformers.generation.processors import dead_end
from workers.engines.transformers.generation.states import RowState


@dataclass(frozen=True, slots=True)
class Choice:
    """token: of one row; error: why there is none."""

    token: int
    error: Exception | None = None


def choose(states: Sequence[RowState], ids: Sequence[Tensor], logits: Tensor) -> list[Choice]:
    """Choose the next token of each row.

    Args:
        ids: what each row has read, `[1, length]`.
        logits: `[rows, vocabulary]`, float32; not changed.
    """
    scores = logits.clone()
    errors = _process(states, ids, scores)
    tokens = torch.zeros(len(states), dtype=torch.long, device=scores.device)
    alive = torch.zeros_like(tokens)
    for rows in _alike(states):
        mine = scores if len(rows) == len(states) else scores[rows]
        tokens[rows], alive[rows] = _choose_together([states[row] for row in rows], mine)
    chosen, possible = torch.stack([tokens, alive]).tolist()
    return [
        Choice(chosen[row], errors.get(row) or (None if possible[row] else _no_token(states[row])))
        for row in range(len(states))
    ]


def _process(states: Sequence[RowState], ids: Sequence[Tensor], scores: Tensor) -> dict[int, Exception]:
    """Process each row by itself, in place. Returns the errors by row; a row that fails is left as it is."""
    errors: dict[int, Exception] = {}
    for row, state in enumerate(states):
        processed = scores[row : row + 1]
        try:
            for processor in state.processors:
                processed = processor(ids[row], processed)
        except Exception as error:
            errors[row] = error
        else:
            if state.processors:
                scores[row] = processed[0]
    return errors


def _alike(states: Sequence[RowState]) -> Iterable[list[int]]:
    """Group rows with the same warpers; greedy, drawn and seeded ones apart."""
    groups: dict[object, list[int]] = defaultdict(list)
    for row, state in enumerate(states):
        groups[state.warper_key, state.generator is None, state.is_seeded].append(row)
    return groups.values()


def _choose_together(states: Sequence[RowState], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of rows that are alike, and 1 for each row that had one to choose."""
    scores, candidates = _warped(states[0], scores)
    if states[0].generator is None:
        places = scores.argmax(dim=-1)
    else:
        places = (scores.softmax(dim=-1) / _noise(states, scores)).argmax(dim=-1)
    alive = scores.gather(1, places[:, None])[:, 0] > -torch.inf
    tokens = places if candidates is None else candidates.gather(1, places[:, None])[:, 0]
    return tokens, alive.long()


def _warped(state: RowState, scores: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the warped scores, and the tokens they belong to (None: all).

    Behind `top_k` a CPU continues with the tokens that are left: to sort a whole vocabulary for `top_p` takes longer
    than a layer of a small model. Not where a seed is given: which of two equal scores `top_p` cuts off depends on how
    many are sorted.
    """
    candidates = None
    narrows = not state.is_seeded and scores.device.type == "cpu"
    for warper in state.warpers:
        scores = warper(None, scores)
        if narrows and isinstance(warper, TopKLogitsWarper):
            most = int((scores > -torch.inf).sum(dim=-1).max())
            if 0 < most <= scores.shape[-1] // 2:
                candidates = scores.topk(most, dim=-1).indices
                scores = scores.gather(1, candidates)
                narrows = False
    return scores, candidates


def _noise(states: Sequence[RowState], scores: Tensor) -> Tensor:
    """Draw each row's noise from its own generator."""
    noise = torch.empty_like(scores)
    for row, state in enumerate(states):
        noise[row].exponential_(generator=state.generator)
    return noise


def _no_token(state: RowState) -> Exception | None:
    """The error of a row whose scores are all -inf. `generate()` takes the first token when greedy, and fails when it
    samples.
    """
    if state.grammar is not None:
        return dead_end()
    if state.generator is None:
        return None
    reason = "they leave no token to choose from: loosen them"
    return InvalidRequest(f"the parameters contradict each other: {reason}", errors={"params": [reason]})
