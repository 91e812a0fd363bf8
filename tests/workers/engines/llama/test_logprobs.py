"""Log-probabilities of a row."""

import math

import numpy as np
import pytest

from workers.engines.llama.logprobs import token_logprobs
from workers.engines.llama.vocabulary import LlamaVocabulary


def test_the_probabilities_of_all_tokens_sum_to_one(vocabulary: LlamaVocabulary) -> None:
    row = np.random.default_rng(0).normal(0, 4, vocabulary.size).astype(np.float32)
    tokens = range(0, vocabulary.size, 97)
    values = [each.logprob for each in token_logprobs([row] * len(tokens), tokens, 0, vocabulary)]
    expected = row[::97].astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    assert values == pytest.approx(expected.tolist(), abs=1e-4)


def test_rivals_come_likeliest_first_and_may_hold_the_token_itself(vocabulary: LlamaVocabulary) -> None:
    row = np.full(vocabulary.size, -30, dtype=np.float32)
    row[[1000, 2000, 3000]] = [1, 3, 2]
    (entry,) = token_logprobs([row], [2000], 3, vocabulary)
    assert list(entry.top) == [vocabulary.text(token) for token in (2000, 3000, 1000)]
    assert entry.token == vocabulary.text(2000) and entry.logprob == entry.top[entry.token]
    assert sum(math.exp(value) for value in entry.top.values()) == pytest.approx(1)


def test_more_rivals_than_tokens_are_all_tokens(vocabulary: LlamaVocabulary) -> None:
    row = np.zeros(3, dtype=np.float32)
    assert len(token_logprobs([row], [0], 50, vocabulary)[0].top) == 3
