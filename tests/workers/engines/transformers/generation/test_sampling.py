"""Tokens sampled for a whole batch: the same as for each sequence by itself, and as in `generate()`."""

from dataclasses import replace

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, request
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.generation.sampling import choose
from workers.engines.transformers.generation.states import RowState

PROMPTS = [f"prompt number {number} {'xyz' * number}" for number in range(16)]
SAMPLING: list[dict[str, float]] = [
    {"temperature": 0.8},
    {"temperature": 1.3, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 8, "repeat_penalty": 1.2},
    {"temperature": 0.0},
    {"temperature": 1.0, "min_p": 0.05, "frequency_penalty": 0.5},
]


def test_a_seed_gives_the_same_text_alone_in_a_batch_and_in_generate(llama: HuggingfaceEngine) -> None:
    requests = [request(text, seed=index, temperature=0.9, max_tokens=16) for index, text in enumerate(PROMPTS)]
    together = [result.tokens for result in complete(llama, *requests)]
    assert together == [complete(llama, each)[0].tokens for each in requests]
    assert together == [
        generated(llama, text, seed=index, do_sample=True, temperature=0.9, max_new_tokens=16)
        for index, text in enumerate(PROMPTS)
    ]


def test_every_row_of_a_batch_is_sampled_with_its_own_parameters(llama: HuggingfaceEngine) -> None:
    requests = [
        request(text, seed=7, max_tokens=12, **SAMPLING[index % len(SAMPLING)]) for index, text in enumerate(PROMPTS)
    ]
    together = [result.tokens for result in complete(llama, *requests)]
    assert together == [complete(llama, each)[0].tokens for each in requests]


def test_without_a_seed_texts_differ_and_with_that_of_the_model_params_they_do_not(llama: HuggingfaceEngine) -> None:
    requests = [request("the same", temperature=1.5, max_tokens=12) for _ in range(4)]
    assert len({tuple(result.tokens) for result in complete(llama, *requests)}) > 1
    seeded = engine_of("llama", seed=3)
    texts = {tuple(result.tokens) for result in complete(seeded, *requests)}
    assert texts == {tuple(complete(llama, request("the same", temperature=1.5, max_tokens=12, seed=3))[0].tokens)}


def test_a_draw_is_that_of_multinomial() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    states = [_row(seed) for seed in range(5)]
    chosen = [choice.token for choice in choose(states, [torch.zeros(1, 1)] * 5, logits)]
    expected = [
        int(torch.multinomial(row.softmax(-1)[None], 1, generator=torch.Generator().manual_seed(seed)))
        for seed, row in enumerate(logits)
    ]
    assert chosen == expected


@pytest.mark.parametrize("is_seeded", [True, False])
def test_top_k_and_top_p_keep_the_tokens_that_they_keep_in_generate(is_seeded: bool) -> None:
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    warpers = [TopKLogitsWarper(40), TopPLogitsWarper(0.8)]
    state = replace(_row(0), warpers=warpers, is_seeded=is_seeded)
    states = [replace(state, generator=torch.Generator().manual_seed(seed)) for seed in range(400)]
    chosen = {choice.token for choice in choose(states, [torch.zeros(1, 1)] * 400, logits.expand(400, -1))}
    warped = warpers[1](None, warpers[0](None, logits))[0]
    left = set((warped > -torch.inf).nonzero()[:, 0].tolist())
    assert chosen <= left
    assert len(chosen) > 0.7 * len(left)


def test_a_processor_that_fails_costs_its_own_row() -> None:
    def fails(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a defect")

    logits = torch.eye(3)
    states = [_row(None), _row(None, [fails]), _row(None)]
    choices = choose(states, [torch.zeros(1, 1)] * 3, logits)
    assert [choice.token for choice in choices if choice.error is None] == [0, 2]
    assert isinstance(choices[1].error, RuntimeError)
    assert torch.equal(logits, torch.eye(3)), "the model's own logits stay as they are, for log-probabilities"


def _row(seed: int | None, processors: list[object] | None = None) -> RowState:
    return RowState(
        spell=lambda token: b"",
        end_tokens=frozenset(),
        processors=processors or [],
        warpers=[],
        warper_key=(),
        generator=None if seed is None else torch.Generator().manual_seed(seed),
        is_seeded=seed is not None,
    )
