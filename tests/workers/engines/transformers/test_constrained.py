"""Grammars and schemas through the engine: what a real model generates under them."""

import json
import re
from typing import Any

import pytest

from tests.workers.engines.llama.test_constrained import PERSON
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, request, serving
from workers.engines.transformers.engine import HuggingfaceEngine

DATE = 'root ::= [0-9]{4} "-" [0-9]{2} "-" [0-9]{2}'


@pytest.fixture
def smollm2() -> HuggingfaceEngine:
    return engine_of("smollm2", n_ctx=128)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.5, "seed": 2, "top_k": 0}, {"use_cache": False}])
def test_a_document_follows_its_schema_however_it_is_decoded(
    smollm2: HuggingfaceEngine, params: dict[str, Any]
) -> None:
    (result,) = complete(smollm2, request("A person as JSON: ", json_schema=PERSON, max_tokens=60, **params))
    person = json.loads(result.text)
    assert set(person) == {"name", "age", "tags"}
    assert isinstance(person["age"], int) and len(person["name"]) <= 12


def test_rows_with_and_without_a_grammar_share_a_batch(llama: HuggingfaceEngine) -> None:
    free = request("abc", max_tokens=12)
    dates = [request(f"Date {seed}: ", grammar=DATE, temperature=1.0, seed=seed, max_tokens=40) for seed in range(4)]
    *results, beside = complete(llama, *dates, free)
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", each.text) for each in results)
    assert beside.tokens == complete(llama, free)[0].tokens


def test_a_model_without_a_cache_follows_grammars_too(mamba: HuggingfaceEngine) -> None:
    (result,) = complete(mamba, request("Date: ", grammar=DATE, max_tokens=40))
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", result.text)


@pytest.mark.parametrize("more", [{"ignore_eos": True}, {"min_length": 9}])
def test_a_complete_grammar_ends_even_where_the_end_is_banned(llama: HuggingfaceEngine, more: dict[str, Any]) -> None:
    (result,) = complete(llama, request("Answer: ", grammar='root ::= "yes" | "no"', max_tokens=20, **more))
    assert result.text in ("yes", "no")


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_another_attempt_continues_within_the_grammar(architecture: str) -> None:
    engine = engine_of(architecture)
    job_request = request("Date: ", grammar=DATE, max_tokens=40)
    (whole,) = complete(engine, job_request)
    with serving(engine) as service:
        service.submit("rest", job_request, earlier=whole.tokens[:6], text=whole.text[:6])
        (rest,) = service.wait("rest")
    assert whole.text[:6] + rest.text == whole.text


def test_a_grammar_whose_tokens_are_all_banned_fails_its_own_request(llama: HuggingfaceEngine) -> None:
    bias = {str(token): -100.0 for token in range(256)}
    ban = list(range(256))
    with serving(llama) as service:
        service.submit("bad", request("a", grammar='root ::= "x"', suppress_tokens=ban, logit_bias=bias))
        service.submit("good", request("a", max_tokens=3))
        bad, good = service.wait("bad", "good")
    assert bad.error is not None and bad.error.code == "invalid_grammar"
    assert len(good.tokens) == 3
