"""Edits of the logits against llama.cpp's own samplers."""

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
import pytest

from app.jobs.sampling import SamplingParams
from workers.engines.llama.samplers import Sampler, penalize, penalizes, recent_tokens
from workers.engines.llama.vocabulary import LlamaVocabulary

SIZE = 1000


def row_of(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 5, SIZE).astype(np.float32)


def penalized_by_llama_cpp(
    row: npt.NDArray[np.float32], history: list[int], sampling: SamplingParams
) -> npt.NDArray[np.float32]:
    sampler = llama_cpp.llama_sampler_init_penalties(
        SIZE,
        sampling.repeat_last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )
    for token in history:
        llama_cpp.llama_sampler_accept(sampler, token)
    data: Any = (llama_cpp.llama_token_data * SIZE)()
    for token in range(SIZE):
        data[token] = (token, row[token], 0.0)
    array = llama_cpp.llama_token_data_array(data=data, size=SIZE, selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    llama_cpp.llama_sampler_free(sampler)
    return np.array([candidate.logit for candidate in data], dtype=np.float32)


@pytest.mark.parametrize(
    "penalties",
    [
        {"repeat_penalty": 1.1},
        {"repeat_penalty": 0.7},
        {"repeat_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
        {"frequency_penalty": -0.5, "repeat_last_n": 10},
        {"presence_penalty": 1.5, "repeat_last_n": 3},
    ],
)
def test_penalties_give_the_logits_of_llama_cpps_penalties_sampler(penalties: dict[str, float]) -> None:
    sampling = SamplingParams(**penalties)  # type: ignore[arg-type]
    history = np.random.default_rng(1).integers(0, 60, 90).tolist()
    mine = row_of(2)
    penalize(mine, recent_tokens(history[:70], history[70:], sampling.repeat_last_n), sampling)
    np.testing.assert_allclose(mine, penalized_by_llama_cpp(row_of(2), history, sampling), rtol=1e-6, atol=1e-6)


def test_the_window_of_the_penalties_spans_prompt_and_completion() -> None:
    assert list(recent_tokens([1, 2, 3], [4, 5], 3)) == [3, 4, 5]
    assert list(recent_tokens([1, 2, 3], [4, 5], 2)) == [4, 5]
    assert list(recent_tokens([1, 2, 3], [4, 5], 9)) == [1, 2, 3, 4, 5]
    assert list(recent_tokens([1, 2, 3], [4, 5], -1)) == [1, 2, 3, 4, 5]


def test_neutral_penalties_cost_nothing() -> None:
    assert not penalizes(SamplingParams())
    assert not penalizes(SamplingParams(repeat_penalty=1.3, repeat_last_n=0))
    assert penalizes(SamplingParams(presence_penalty=0.1))


def test_greedy_takes_the_lowest_id_of_equals(vocabulary: LlamaVocabulary) -> None:
    row = np.zeros(vocabulary.size, dtype=np.float32)
    row[[700, 300, 900]] = 5
    assert Sampler(SamplingParams(temperature=0), vocabulary, None).choose(0, 0, row, [1], []) == 300


def test_a_chain_may_be_closed_twice(vocabulary: LlamaVocabulary) -> None:
    sampler = Sampler(SamplingParams(), vocabulary, None)
    sampler.close()
    sampler.close()
