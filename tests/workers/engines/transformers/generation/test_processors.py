"""Common parameters that transformers lacks: windows of penalties, frequency and presence penalties, bias."""

import math

import pytest
import torch

from app.jobs.sampling import SamplingParams
from tests.workers.engines.transformers.driver import complete, generated, request
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.generation.processors import AddBias, PenalizeRecent, common_processors

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 1, 2, 3], [3, 3, 3, 0]])


def test_frequency_and_presence_are_subtracted_from_what_has_occurred() -> None:
    scores = PenalizeRecent(-1, 1.0, 0.5, 0.25)(IDS, torch.zeros(2, 5))
    assert scores.tolist() == [[0, -1.25, -0.75, -0.75, 0], [-0.75, 0, 0, -1.75, 0]]


def test_a_window_forgets_what_lies_before_it() -> None:
    scores = PenalizeRecent(2, 1.0, 1.0, 0.0)(IDS, torch.zeros(2, 5))
    assert scores.tolist() == [[0, 0, -1, -1, 0], [-1, 0, 0, -1, 0]]


def test_the_repeat_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    scores = PenalizeRecent(-1, 2.0, 0.0, 0.0)(IDS, torch.tensor([[4.0, 4.0, -4.0, 0.0, 4.0]] * 2))
    assert scores.tolist() == [[4, 2, -8, 0, 4], [2, 4, -4, 0, 4]]


def test_a_bias_is_added_and_minus_infinity_bans() -> None:
    scores = AddBias({1: 2.5, 3: -math.inf}, CPU)(IDS, torch.ones(2, 5))
    assert scores.tolist() == [[1, 3.5, 1, -math.inf, 1]] * 2


@pytest.mark.parametrize(
    ("sampling", "kinds"),
    [
        (SamplingParams(), []),
        (SamplingParams(repeat_penalty=1.3, repeat_last_n=-1), []),  # transformers' own
        (SamplingParams(repeat_penalty=1.3, repeat_last_n=10), [PenalizeRecent]),
        (SamplingParams(repeat_penalty=1.3, repeat_last_n=0), []),
        (SamplingParams(presence_penalty=0.1), [PenalizeRecent]),
        (SamplingParams(logit_bias={1: 1.0}), [AddBias]),
        (SamplingParams(ignore_eos=True), [AddBias]),
    ],
)
def test_only_the_requested_processors_are_made(sampling: SamplingParams, kinds: list[type]) -> None:
    assert [type(processor) for processor in common_processors(sampling, [9], CPU)] == kinds


def test_a_window_over_everything_is_transformers_own_penalty(llama: HuggingfaceEngine) -> None:
    prompt = "abcabcabcabc"
    windowed, own = complete(
        llama,
        request(prompt, repeat_penalty=1.4, repeat_last_n=1000, max_tokens=20),
        request(prompt, repeat_penalty=1.4, max_tokens=20),
    )
    assert windowed.tokens == own.tokens == generated(llama, prompt, repetition_penalty=1.4, max_new_tokens=20)


def test_ignore_eos_continues_to_the_last_token_allowed(llama: HuggingfaceEngine) -> None:
    prompt = next(text for text in map(str, range(500)) if len(generated(llama, text, max_new_tokens=30)) < 10)
    (result,) = complete(llama, request(prompt, ignore_eos=True, max_tokens=30))
    assert len(result.tokens) == 30
    assert 256 not in result.tokens
