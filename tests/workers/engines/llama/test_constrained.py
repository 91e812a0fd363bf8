"""Grammars and schemas through the engine: what the real model generates under them."""

import json
import re

import pytest

from tests.workers.engines.llama.driver import GREEDY, begin, complete, finish, request
from workers.engines.llama.engine import LlamaEngine

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "é"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("params", [GREEDY, {"seed": 1}, {"seed": 2, "top_k": 0, "temperature": 1.5}, {"mirostat": 2}])
def test_a_document_follows_its_schema_however_it_is_sampled(engine: LlamaEngine, params: dict[str, object]) -> None:
    run = complete(engine, "A person as JSON: ", json_schema=PERSON, max_tokens=100, **params)
    person = json.loads(run.text)
    assert set(person) == {"name", "age", "tags"}
    assert isinstance(person["age"], int) and len(person["name"]) <= 12


def test_text_follows_its_grammar_to_the_end(engine: LlamaEngine) -> None:
    run = complete(engine, "Date: ", grammar='root ::= [0-9]{4} "-" [0-9]{2} "-" [0-9]{2}', seed=3, max_tokens=40)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", run.text)


def test_a_complete_grammar_ends_even_where_the_end_is_banned(engine: LlamaEngine) -> None:
    run = complete(engine, "Answer: ", grammar='root ::= "yes" | "no"', ignore_eos=True, max_tokens=20)
    assert run.text in ("yes", "no")


def test_rows_with_and_without_a_grammar_share_a_batch(engine: LlamaEngine) -> None:
    free = complete(engine, "The capital of France is", max_tokens=8, **GREEDY)
    bound, beside = begin(
        engine,
        [
            request("Say: ", grammar='root ::= "a"+', max_tokens=8, **GREEDY),
            request("The capital of France is", max_tokens=8, **GREEDY),
        ],
    )
    for run in (bound, beside):
        engine.start(run.slot, run.prompt)
    finish(engine, [bound, beside])
    assert set(bound.text) == {"a"}
    assert beside.text == free.text


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_document_that_another_worker_began_ends_by_its_schema(engine: LlamaEngine, cut: int) -> None:
    params: dict[str, object] = {"json_schema": PERSON, "max_tokens": 100, **GREEDY}
    whole = complete(engine, "A person as JSON: ", **params)
    (run,) = begin(engine, [request("A person as JSON: ", **params)])
    pieces = engine.resume(run.prompt, whole.tokens[:cut])
    assert whole.data.startswith(b"".join(pieces))
    run.prompt.tokens += whole.tokens[:cut]
    run.tokens += whole.tokens[:cut]
    finish(engine, [run])
    assert run.tokens == whole.tokens
