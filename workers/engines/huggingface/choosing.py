"""The next tokens of a whole batch, chosen on the device; the host waits for it once per step.

A row's scores go through transformers' processors as in `generate()`. The draw is that of `torch.multinomial`, which
divides by exponential noise and takes the largest, with noise from a generator of the row's own: the same seed gives
the same text alone, in a batch, and in `generate()`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.contract.errors import InvalidRequest
from workers.engines.huggingface.processors import dead_end
from workers.engines.huggingface.states import RowState


@dataclass(frozen=True, slots=True)
class Choice:
    """token: of one row; error: why there is none."""

    token: int
    error: Exception | None = None


def choose(states: Sequence[RowState], ids: Sequence[Tensor], logits: Tensor) -> list[Choice]:
    """Args: ids: what each row has read, `[1, length]`. logits: `[rows, vocabulary]`, float32; kept as they are."""
    scores = logits.clone()
    errors = _process(states, ids, scores)
    _warp(states, scores)
    tokens = scores.argmax(dim=-1)
    drawing = [row for row, state in enumerate(states) if state.generator is not None and row not in errors]
    if drawing:
        tokens[drawing] = _draw(scores[drawing], [states[row].generator for row in drawing])
    alive = scores.gather(1, tokens[:, None])[:, 0] > -torch.inf
    found, possible = torch.stack([tokens, alive.long()]).tolist()
    return [
        Choice(found[row], errors.get(row) or (None if possible[row] else _no_token(states[row])))
        for row in range(len(states))
    ]


def _process(states: Sequence[RowState], ids: Sequence[Tensor], scores: Tensor) -> dict[int, Exception]:
    """Each row by itself, in place; a row that fails is left as it is."""
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


def _warp(states: Sequence[RowState], scores: Tensor) -> None:
    """Rows with the same warpers together, in place."""
    alike: dict[object, list[int]] = defaultdict(list)
    for row, state in enumerate(states):
        if state.warpers:
            alike[state.warper_key].append(row)
    for rows in alike.values():
        warped = scores if len(rows) == len(states) else scores[rows]
        for warper in states[rows[0]].warpers:
            warped = warper(None, warped)
        scores[rows] = warped


def _draw(scores: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    noise = torch.empty_like(scores)
    for row, generator in enumerate(generators):
        noise[row].exponential_(generator=generator)
    return (scores.softmax(dim=-1) / noise).argmax(dim=-1)


def _no_token(state: RowState) -> Exception | None:
    """Every score is -inf. `generate()` takes the first token when greedy, and fails when it samples."""
    if state.grammar is not None:
        return dead_end()
    if state.generator is None:
        return None
    reason = "they leave no token to choose from: loosen them"
    return InvalidRequest(f"the parameters contradict each other: {reason}", errors={"params": [reason]})
