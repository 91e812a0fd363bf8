"""Logits processors for the fields of `SamplingParams` that transformers has no argument for.

Called with `input_ids` (`[rows, length]`, prompt included) and `scores` (`[rows, vocabulary]`); they return new scores.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from app.errors import InvalidGrammar
from app.jobs.sampling import SamplingParams
from workers.engines.shared.constraint import Constraint

_NONE = float("-inf")


class AddBias(LogitsProcessor):  # type: ignore[misc]  # transformers is not followed by the type checker
    """`logit_bias`; -inf bans."""

    def __init__(self, bias: dict[int, float], device: torch.device) -> None:
        self._tokens = torch.tensor(list(bias), device=device)
        self._bias = torch.tensor(list(bias.values()), device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_add(1, self._tokens, self._bias.expand(scores.shape[0], -1).to(scores.dtype))


class PenalizeRecent(LogitsProcessor):  # type: ignore[misc]
    """The three penalties of llama.cpp on the last `window` tokens, prompt included; a negative window means all."""

    def __init__(self, window: int, repeat: float, frequency: float, presence: float) -> None:
        self._window = window
        self._repeat = repeat
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        recent = input_ids if self._window < 0 else input_ids[:, max(0, input_ids.shape[1] - self._window) :]
        counts = torch.zeros_like(scores).scatter_add_(1, recent, torch.ones_like(recent, dtype=scores.dtype))
        repeated = torch.where(scores <= 0, scores * self._repeat, scores / self._repeat)
        penalized = repeated - counts * self._frequency - self._presence
        return torch.where(counts > 0, penalized, scores)


class FollowGrammar(LogitsProcessor):  # type: ignore[misc]
    """Bans what a grammar or schema does not allow next. For one sequence, from the first token behind its prompt."""

    def __init__(self, constraint: Constraint, prompt_tokens: int, end_tokens: Sequence[int]) -> None:
        self._constraint = constraint
        self._accepted_to = prompt_tokens
        self._end_tokens = list(end_tokens)

    def accept(self, tokens: Sequence[int]) -> None:
        """Advance the grammar by tokens that were chosen. Raises InvalidGrammar; ValueError: a token is not allowed."""
        for token in tokens:
            if token not in self._end_tokens:
                self._constraint.accept(token)
        self._accepted_to += len(tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > self._accepted_to:
            self.accept(input_ids[0, self._accepted_to :].tolist())
        mask = np.zeros(scores.shape[1], dtype=np.float32)
        self._constraint.allow(mask)
        allowed = torch.from_numpy(mask).to(scores.device)
        if self._constraint.is_complete:  # even where `min_length` or `ignore_eos` forbids the end
            return allowed.expand_as(scores)
        return scores + allowed


def dead_end() -> InvalidGrammar:
    """The error where the other parameters forbid all that the grammar allows."""
    reason = "no token that the other parameters leave continues the text"
    return InvalidGrammar(f"the grammar leads nowhere: {reason}", errors={"params": [reason]})


def common_processors(
    sampling: SamplingParams, end_tokens: Sequence[int], device: torch.device
) -> list[LogitsProcessor]:
    """Return the processors that `sampling` asks for, but for its grammar."""
    processors: list[LogitsProcessor] = []
    bias = dict(sampling.logit_bias)
    if sampling.ignore_eos:
        bias |= dict.fromkeys(end_tokens, _NONE)
    if bias:
        processors.append(AddBias(bias, device))
    windowed = sampling.repeat_last_n >= 0
    repeat = sampling.repeat_penalty if windowed else 1.0
    neutral = repeat == 1 and not sampling.frequency_penalty and not sampling.presence_penalty
    if sampling.repeat_last_n != 0 and not neutral:
        penalties = (repeat, sampling.frequency_penalty, sampling.presence_penalty)
        processors.append(PenalizeRecent(sampling.repeat_last_n, *penalties))
    return processors
