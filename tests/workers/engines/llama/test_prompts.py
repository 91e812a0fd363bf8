"""What a request becomes, and what is refused before it costs the worker anything."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.contract.errors import InvalidGrammar, InvalidRequest, PromptTooLong, UnsupportedParameter
from tests.workers.engines.llama.driver import request
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.prompts import infill_tokens
from workers.engines.llama.vocabulary import Vocabulary


def test_the_defaults_of_generate_are_those_of_the_original(engine: LlamaEngine) -> None:
    sampling = engine.prepare(request("Hi")).sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (128, 0.8, 0.95, 40)
    assert (sampling.repeat_penalty, sampling.repeat_last_n, sampling.min_p) == (1.1, 64, 0.0)


def test_special_tokens_in_the_prompt_are_recognised(engine: LlamaEngine, vocabulary: Vocabulary) -> None:
    tokens = engine.prepare(request("<|im_start|>user")).tokens
    assert vocabulary.text(tokens[0]) == "<|im_start|>" and vocabulary.piece(tokens[0]) == b""


def test_a_prompt_without_tokens_begins_with_the_models_first_token(engine: LlamaEngine) -> None:
    assert engine.prepare(request("")).tokens == [1]


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(engine: LlamaEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"has 600 tokens and the context 512") as caught:
        engine.prepare(request(" a" * 600))
    assert list(caught.value.errors) == ["prompt"]
    engine.prepare(request(" a" * 511))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens": 10_000}, 512 - 3),
        ({"max_length": 10}, 7),
        ({"max_length": 300}, 297),
        ({"max_length": 300, "max_tokens": 5}, 5),
        ({"max_length": 6, "max_tokens": 5}, 3),
    ],
)
def test_max_tokens_is_what_really_can_be_generated(engine: LlamaEngine, params: dict[str, Any], expected: int) -> None:
    prompt = engine.prepare(request("a b c", **params))
    assert len(prompt.tokens) == 3 and prompt.sampling.max_tokens == expected


@pytest.mark.parametrize(
    ("params", "error", "field"),
    [
        ({"max_length": 2}, InvalidRequest, "params.max_length"),
        ({"logit_bias": {"49152": 1.0}}, InvalidRequest, "params.logit_bias"),
        ({"logit_bias": {"-1": 1.0}}, InvalidRequest, "params.logit_bias"),
        ({"suffix": "the end"}, UnsupportedParameter, "params.suffix"),
        ({"num_beams": 4}, UnsupportedParameter, "params.num_beams"),
        ({"grammar": "root ::= ("}, InvalidGrammar, "params.grammar"),
        ({"json_schema": {"type": "colour"}}, InvalidGrammar, "params.json_schema"),
    ],
)
def test_a_request_that_cannot_run_is_refused_by_the_name_of_its_field(
    engine: LlamaEngine, params: dict[str, Any], error: type[InvalidRequest], field: str
) -> None:
    with pytest.raises(error) as caught:
        engine.prepare(request("a b c", **params))
    assert list(caught.value.errors) == [field] and caught.value.status == 422


def test_a_suffix_goes_in_with_the_models_infill_tokens() -> None:
    def tokenize(text: str, *, add_special: bool = True) -> list[int]:
        return [1, *text.encode()] if add_special else list(text.encode())

    vocabulary = cast(Vocabulary, SimpleNamespace(infill=(1001, 1002, 1003), tokenize=tokenize))
    assert infill_tokens(vocabulary, "AB", "C") == [1, 1001, 65, 66, 1002, 67, 1003]


def test_many_threads_prepare_at_once(engine: LlamaEngine) -> None:
    texts = [f"{'word ' * (number % 50)}{number}" for number in range(200)]
    expected = [engine.prepare(request(text)).tokens for text in texts]
    with ThreadPoolExecutor(16) as pool:
        prompts = list(pool.map(lambda text: engine.prepare(request(text, json_schema={"type": "integer"})), texts))
    assert [prompt.tokens for prompt in prompts] == expected
