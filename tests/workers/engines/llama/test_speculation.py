"""With guessed tokens the real model gives the same text as without, however it is sampled and however it ends."""

import json
import random

import pytest

from app.jobs.job import FinishReason
from tests.bench import extraction
from tests.workers.engines.llama.driver import GREEDY, request
from tests.workers.engines.speculating import Completion, Guesses, run_requests
from workers.engines.llama.engine import LlamaEngine

PERSON = {
    "type": "object",
    "properties": {"name": {"const": "Tomas Reed"}, "trade": {"type": "string", "maxLength": 20}},
    "required": ["name", "trade"],
    "additionalProperties": False,
}
FORM = json.dumps({"name": "Tomas Reed", "trade": "keeper of lights"})
QUOTES = extraction.prompts(6, random.Random(2))
PARAMS: dict[str, tuple[str, dict[str, object]]] = {
    "greedy": (QUOTES[0], {"max_tokens": 70, **GREEDY}),
    "drawn with a seed, under penalties": (QUOTES[1], {"max_tokens": 70, "seed": 5, "temperature": 0.5}),
    "drawn from a wide choice": (
        "Count: one two three four, one two three four, one two",
        {"max_tokens": 40, "seed": 7},
    ),
    "mirostat": (QUOTES[2], {"max_tokens": 40, "seed": 3, "mirostat": 2, "repeat_penalty": 1.0}),
    "with a stop string": (QUOTES[3], {"max_tokens": 70, "stop": ["feet above"], **GREEDY}),
    "with logprobs": (QUOTES[4], {"max_tokens": 33, "logprobs": 2, **GREEDY}),
    "under a schema": (f"Two persons as JSON:\n{FORM}\n", {"max_tokens": 40, "json_schema": PERSON, **GREEDY}),
    "to its own end": (QUOTES[5], {"max_tokens": 200, **GREEDY}),
}


@pytest.fixture(scope="module")
def both(shared_engine: LlamaEngine) -> tuple[dict[str, Completion], dict[str, Completion], Guesses]:
    """The completions without guesses and with them, by the keys of `PARAMS`, and the guesses."""
    with pytest.MonkeyPatch.context() as patch:
        requests = [request(prompt, **params) for prompt, params in PARAMS.values()]
        without, none = run_requests(shared_engine, *requests, speculates=False, monkeypatch=patch)
        guessed, guesses = run_requests(shared_engine, *requests, speculates=True, monkeypatch=patch)
    assert none.made == 0
    return dict(zip(PARAMS, without, strict=True)), dict(zip(PARAMS, guessed, strict=True)), guesses


@pytest.mark.parametrize("how", PARAMS)
def test_guesses_change_neither_the_text_nor_its_end(
    both: tuple[dict[str, Completion], dict[str, Completion], Guesses], how: str
) -> None:
    without, guessed, _ = both
    assert (guessed[how].text, guessed[how].tokens) == (without[how].text, without[how].tokens)
    assert (guessed[how].reason, guessed[how].usage) == (without[how].reason, without[how].usage)
    for mine, plain in zip(guessed[how].logprobs, without[how].logprobs, strict=True):
        assert mine.token == plain.token and mine.logprob == pytest.approx(plain.logprob, abs=0.05)


def test_many_guesses_hold_and_some_do_not(both: tuple[dict[str, Completion], dict[str, Completion], Guesses]) -> None:
    _, guessed, guesses = both
    assert guesses.made > guesses.held > 100
    assert guessed["with a stop string"].reason is FinishReason.STOP
    assert guessed["with logprobs"].usage.completion_tokens == len(guessed["with logprobs"].logprobs) == 33


def test_a_next_turn_shares_generated_tokens_and_no_rejected_guesses(
    shared_engine: LlamaEngine,
    both: tuple[dict[str, Completion], dict[str, Completion], Guesses],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt, params = PARAMS["greedy"]
    turn = f"{prompt}{both[0]['greedy'].text}<|im_end|>\n<|im_start|>user\nAgain."
    requests = [request(prompt, **params), request(turn, max_tokens=40, **GREEDY)]
    without, guessed = (
        run_requests(shared_engine, *requests, speculates=speculates, monkeypatch=monkeypatch, one_by_one=True)[0]
        for speculates in (False, True)
    )
    assert [each.text for each in guessed] == [each.text for each in without]
    assert guessed[1].usage == without[1].usage
    assert guessed[1].usage.cached_tokens >= guessed[0].usage.prompt_tokens + guessed[0].usage.completion_tokens - 1
