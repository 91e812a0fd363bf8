"""In float32, rows with guessed tokens have the tokens of `model.generate()`, greedy or sampled."""

import random

import pytest

from tests.workers.engines.speculating import run_requests
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import generated, request
from tests.workers.engines.transformers.models import VOCABULARY
from workers.engines.transformers.engine import HuggingfaceEngine

NEW_TOKENS = 60


def prompts() -> list[str]:
    """Texts that repeat, so that many tokens are guessed, rightly or wrongly."""
    chance = random.Random(4)
    words = ["".join(chance.choices("abcdefgh", k=length)) for length in (2, 5, 9, 14)]
    return [f"{word} " * (40 // len(word)) for word in words]


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "gemma2"])
def test_greedy_rows_have_the_text_of_generate(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(architecture)
    requests = [request(text, max_tokens=NEW_TOKENS) for text in prompts()]
    completions, guesses = run_requests(engine, *requests, speculates=True, monkeypatch=monkeypatch)
    assert [each.tokens for each in completions] == [
        generated(engine, text, max_new_tokens=NEW_TOKENS, do_sample=False) for text in prompts()
    ]
    assert guesses.held > 0


def test_a_seed_draws_what_generate_draws(llama: HuggingfaceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [token for token in range(VOCABULARY) if token not in llama._vocabulary.tokenize("abc")]
    params = {"do_sample": True, "temperature": 30.0, "suppress_tokens": others}  # three letters, nearly by chance
    requests = [request(text, max_tokens=NEW_TOKENS, seed=9, **params) for text in prompts()]
    completions, guesses = run_requests(llama, *requests, speculates=True, monkeypatch=monkeypatch)
    expected = [generated(llama, text, seed=9, max_new_tokens=NEW_TOKENS, **params) for text in prompts()]
    assert [each.tokens for each in completions] == expected
    assert guesses.made > guesses.held > 0


def test_processors_grammars_logprobs_and_stop_strings_work_as_without_guesses(
    llama: HuggingfaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = prompts()
    requests = [
        request(texts[0], max_tokens=NEW_TOKENS, repetition_penalty=1.05, min_length=50),
        request(texts[1], max_tokens=NEW_TOKENS, grammar='root ::= ("ab" | "abc" | "c")*'),
        request(texts[2], max_tokens=NEW_TOKENS, logprobs=2),
        request(texts[3], max_tokens=NEW_TOKENS, no_repeat_ngram_size=12),
    ]
    without, _ = run_requests(llama, *requests, speculates=False, monkeypatch=monkeypatch)
    middle = without[2].text[20:24]
    requests.append(request(texts[2], max_tokens=NEW_TOKENS, stop=[middle]))
    without, _ = run_requests(llama, *requests, speculates=False, monkeypatch=monkeypatch)
    guessed, guesses = run_requests(llama, *requests, speculates=True, monkeypatch=monkeypatch)
    for mine, plain in zip(guessed, without, strict=True):
        assert (mine.tokens, mine.text, mine.reason, mine.usage) == (
            plain.tokens,
            plain.text,
            plain.reason,
            plain.usage,
        )
    assert [each.token for each in guessed[2].logprobs] == [each.token for each in without[2].logprobs]
    assert guesses.held > 0
