"""How one sequence chooses its next token: llama.cpp's sampler chain behind in-place edits of the logits.

This is where every field of `SamplingParams` that shapes the choice takes effect: in `Sampler.edit`, or as a sampler
of llama.cpp in `_samplers`.

Bias, bans and penalties touch few tokens, so they are applied to the row itself: llama.cpp's own penalties sampler
looks up all 49,000 candidates in a hash table for each token. The order is llama.cpp's: bias, penalties, top_k,
typical_p, top_p, min_p, temperature, draw.
"""

import ctypes
import random
import weakref
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from app.errors import InvalidGrammar
from app.jobs.sampling import SamplingParams
from workers.engines.llama.library import sampler_sample
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.constraint import Constraint

MIROSTAT_M = 100  # tokens that mirostat 1 estimates the distribution from, as llama.cpp
_SEED_MASK = 0xFFFF_FFFF
_RANDOM_SEED = 0xFFFF_FFFF  # llama.cpp takes this number for "no seed"

Row = npt.NDArray[np.float32]


class Sampler:
    """One per sequence; one thread at a time.

    The same seed gives the same text whatever else is in the batch, as far as the arithmetic allows: a batch of another
    size may round a logit differently in its last bits, and where two tokens are that close the choice can differ.
    """

    def __init__(self, sampling: SamplingParams, vocabulary: LlamaVocabulary, constraint: Constraint | None) -> None:
        self._sampling = sampling
        self._vocabulary = vocabulary
        self._constraint = constraint
        self._biased = np.array(list(sampling.logit_bias), dtype=np.int64)
        self._bias = np.array(list(sampling.logit_bias.values()), dtype=np.float32)
        self._penalizes = penalizes(sampling)
        self._chain = None if sampling.temperature <= 0 else _Chain(sampling, vocabulary)

    def choose(self, context: int, batch_row: int, row: Row, prompt: Sequence[int], generated: Sequence[int]) -> int:
        """Choose the next token. `row` (`[vocabulary]`) is edited in place.

        Args:
            context: llama.cpp's context pointer, which holds `row` as the output of `batch_row`.
            prompt, generated: tokens so far, for penalties and `min_length`.

        Raises:
            InvalidGrammar: the grammar leads nowhere, or takes too long to follow; the sequence fails.
        """
        self.edit(row, prompt, generated)
        token = self._pick(context, batch_row, row)
        if self._constraint is None:
            return token
        if row[token] == -np.inf or not self._constraint.permits(token):
            self._constraint.allow(row)  # only if the unconstrained choice is not allowed, which is rare
            token = self._pick(context, batch_row, row)
            if row[token] == -np.inf:
                token = self._forced_end(self._constraint)
        self._constraint.accept(token)
        return token

    def resume(self, generated: Sequence[int]) -> None:
        """Continue behind tokens that another sampler has chosen. Its random state is lost: this draws others."""
        if self._constraint is not None:
            for token in generated:
                self._constraint.accept(token)

    def ends(self, token: int) -> bool:
        """Is the sequence over with this token? With `ignore_eos` only where a grammar leaves nothing else."""
        ignores = self._sampling.ignore_eos and self._constraint is None
        return token in self._vocabulary.end_tokens and not ignores

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()

    def edit(self, row: Row, prompt: Sequence[int], generated: Sequence[int]) -> None:
        """Apply bias, bans and penalties to the logits."""
        sampling = self._sampling
        if len(self._biased):
            row[self._biased] += self._bias
        if sampling.ignore_eos or len(generated) < sampling.min_length:
            row[self._vocabulary.end_array] = -np.inf
        if self._penalizes:
            penalize(row, recent_tokens(prompt, generated, sampling.repeat_last_n), sampling)

    def _pick(self, context: int, batch_row: int, row: Row) -> int:
        return int(row.argmax()) if self._chain is None else self._chain.sample(context, batch_row)

    def _forced_end(self, constraint: Constraint) -> int:
        """`min_length` or `ignore_eos` forbids the end, and the grammar leaves nothing else."""
        eos = self._vocabulary.eos
        if eos is None or not constraint.permits(eos):
            reason = "no token that the other parameters leave continues the text"
            raise InvalidGrammar(f"the grammar leads nowhere: {reason}", errors={"params": [reason]})
        return eos


def is_deterministic(sampling: SamplingParams) -> bool:
    """Is the choice greedy, or drawn with a seed of the client's or the configuration's?"""
    return sampling.temperature <= 0 or (sampling.seed is not None and sampling.seed >= 0)


def penalizes(sampling: SamplingParams) -> bool:
    neutral = sampling.repeat_penalty == 1 and not sampling.frequency_penalty and not sampling.presence_penalty
    return sampling.repeat_last_n != 0 and not neutral


def recent_tokens(prompt: Sequence[int], generated: Sequence[int], window: int) -> Sequence[int]:
    """Return the last `window` tokens of both; -1 = all."""
    if window < 0:
        return [*prompt, *generated]
    missing = window - len(generated)
    if missing <= 0:
        return generated[-window:]
    return [*prompt[-missing:], *generated]


def penalize(row: Row, recent: Sequence[int], sampling: SamplingParams) -> None:
    """Apply llama.cpp's three penalties (`llama_sampler_penalties_apply`) to the tokens that occur in `recent`."""
    if not recent:
        return
    tokens = np.array(recent, dtype=np.int64)
    counts = None
    if sampling.frequency_penalty or sampling.presence_penalty:
        tokens, counts = np.unique(tokens, return_counts=True)
    logits = row[tokens]
    factor = np.float32(sampling.repeat_penalty)
    logits = np.where(logits <= 0, logits * factor, logits / factor)
    if counts is not None:
        frequency, presence = np.float32(sampling.frequency_penalty), np.float32(sampling.presence_penalty)
        logits -= counts.astype(np.float32) * frequency + presence
    row[tokens] = logits


class _Chain:
    """llama.cpp's samplers after the penalties, with their random state. Freed with the object at the latest."""

    def __init__(self, sampling: SamplingParams, vocabulary: LlamaVocabulary) -> None:
        parameters = llama_cpp.llama_sampler_chain_default_params()
        parameters.no_perf = True
        chain = llama_cpp.llama_sampler_chain_init(parameters)
        self.close = weakref.finalize(self, llama_cpp.llama_sampler_free, chain)
        self.close.atexit = False  # at the end of the process the library may have ended before
        for sampler in _samplers(sampling, vocabulary):
            llama_cpp.llama_sampler_chain_add(chain, sampler)
        self._pointer = ctypes.cast(chain, ctypes.c_void_p).value

    def sample(self, context: int, batch_row: int) -> int:
        return int(sampler_sample(self._pointer, context, batch_row))


def _samplers(sampling: SamplingParams, vocabulary: LlamaVocabulary) -> list[Any]:
    seed = _seed(sampling.seed)
    temperature = llama_cpp.llama_sampler_init_temp(sampling.temperature)
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        mirostat = llama_cpp.llama_sampler_init_mirostat(vocabulary.size, seed, tau, eta, MIROSTAT_M)
        return [temperature, mirostat]
    if sampling.mirostat == 2:
        return [temperature, llama_cpp.llama_sampler_init_mirostat_v2(seed, tau, eta)]
    chain = []
    if sampling.top_k > 0:
        chain.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.typical_p < 1:
        chain.append(llama_cpp.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1:
        chain.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        chain.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    return [*chain, temperature, llama_cpp.llama_sampler_init_dist(seed)]


def _seed(seed: int | None) -> int:
    """Return the seed; a random one for None and for negative numbers, as in llama.cpp."""
    if seed is None or seed < 0:
        return random.randrange(_RANDOM_SEED)
    return min(seed & _SEED_MASK, _RANDOM_SEED - 1)
