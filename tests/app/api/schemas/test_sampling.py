import math
from dataclasses import fields
from typing import Any

import pytest
from marshmallow import ValidationError

from app.api.schemas.sampling import ALIASES, MAX_STOPS, SamplingSchema
from app.jobs.sampling import MAX_TOKENS, SamplingParams, parameters

SCHEMA = SamplingSchema(partial=True)


def load(**params: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = SCHEMA.load(params)
    return loaded


def messages(**params: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        SCHEMA.load(params)
    return caught.value.messages


def test_every_parameter_of_the_contract_can_be_sent() -> None:
    names = {field.name for field in fields(SamplingParams)} - {"extra"}
    assert names <= set(SCHEMA.load_fields)


@pytest.mark.parametrize("name", parameters())
def test_a_parameter_and_its_aliases_have_the_type_and_the_limits_of_its_declaration(name: str) -> None:
    _, parameter = parameters()[name]
    for spelling in (name, *parameter.aliases):
        assert set(messages(**{spelling: object()})) == {spelling}
        least, most = parameter.limits or (None, None)
        if least is not None:
            below = least - 1 if parameter.minus_one is None else -2
            assert set(messages(**{spelling: below})) == {spelling}
        if most is not None and not parameter.clipped:
            assert set(messages(**{spelling: most + 1})) == {spelling}


@pytest.mark.parametrize("name", [name for name, (_, parameter) in parameters().items() if parameter.clipped])
@pytest.mark.parametrize("beyond", [MAX_TOKENS + 1, 2**31, 10**30])
def test_a_number_of_tokens_beyond_every_context_counts_as_the_largest(name: str, beyond: int) -> None:
    assert load(**{name: beyond}) == {name: MAX_TOKENS}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("max_tokens", MAX_TOKENS), ("num_predict", MAX_TOKENS), ("max_length", MAX_TOKENS), ("top_k", 0)],
)
def test_minus_one_means_no_limit(name: str, meaning: int) -> None:
    assert load(**{name: -1}) == {ALIASES.get(name, name): meaning}
    (text,) = messages(**{name: -2})[name]
    assert "-1 for no limit" in text


def test_the_seed_minus_one_is_a_random_one() -> None:
    assert load(seed=-1) == {}


def test_loading_returns_the_sent_values() -> None:
    assert load() == {}
    assert load(temperature=0.5, stop=["a"], seed=3) == {"temperature": 0.5, "stop": ["a"], "seed": 3}


@pytest.mark.parametrize(("alias", "canonical"), sorted(ALIASES.items()))
def test_an_alias_becomes_its_canonical_name(alias: str, canonical: str) -> None:
    values = {"stop": ["x"], "grammar": "x", "regex": "x", "json_schema": {}}
    value = values.get(canonical, 1)
    assert load(**{alias: value}) == {canonical: value}


def test_max_length_stays_unchanged_as_only_the_worker_knows_the_length_of_a_prompt() -> None:
    assert load(max_length=20, max_tokens=5) == {"max_length": 20, "max_tokens": 5}


def test_do_sample_false_is_greedy() -> None:
    assert load(do_sample=False) == {"temperature": 0.0}
    assert load(do_sample=True, temperature=0.7) == {"do_sample": True, "temperature": 0.7}
    assert load(do_sample=False, temp=0) == {"temperature": 0.0}


def test_what_only_transformers_knows_passes_as_it_is_and_is_the_workers_to_judge() -> None:
    sent = {"num_beams": 4, "sequence_bias": [[[1, 2], 3]], "eos_token_id": [5, 6], "max_time": 1, "use_cache": False}
    assert load(**sent, watermarking_config=None) == sent


@pytest.mark.parametrize(
    ("name", "value"), [("num_beams", 1.5), ("use_cache", 1), ("max_time", "1"), ("suppress_tokens", [math.inf])]
)
def test_what_only_transformers_knows_has_its_type(name: str, value: Any) -> None:
    assert list(messages(**{name: value})) == [name]


def test_do_sample_false_with_a_temperature_is_refused() -> None:
    assert messages(do_sample=False, temp=0.7) == {
        "temp": ["do_sample: false means temperature 0; send do_sample or temp."]
    }


def test_a_name_beside_its_alias_is_refused_and_both_are_named() -> None:
    (text,) = messages(max_tokens=3, n_predict=4)["n_predict"]
    assert "max_tokens and n_predict" in text


def test_two_aliases_of_one_name_are_refused_and_both_are_named() -> None:
    (text,) = messages(max_new_tokens=3, n_predict=4)["n_predict"]
    assert "max_new_tokens and n_predict" in text


def test_names_that_mean_the_same_may_have_the_same_value() -> None:
    assert load(max_tokens=3, n_predict=3, max_new_tokens=3) == {"max_tokens": 3}
    assert load(stop=["x"], stopping_strings=["x"], sampling_seed=5, seed=5) == {"stop": ["x"], "seed": 5}


def test_an_empty_grammar_and_an_empty_suffix_ask_for_nothing() -> None:
    assert load(grammar="", suffix="") == {}
    assert load(grammar="", json_schema={"type": "object"}) == {"json_schema": {"type": "object"}}


def test_n_probs_zero_asks_for_no_logprobs() -> None:
    assert load(n_probs=0) == {}
    assert load(logprobs=0) == {"logprobs": 0}


def test_null_means_not_given() -> None:
    assert load(stop=None, seed=None, temperature=None, max_tokens=3, n_predict=None) == {"max_tokens": 3}


@pytest.mark.parametrize(
    ("sent", "near"), [("temprature", "temperature"), ("topk", "top_k"), ("max_token", "max_tokens")]
)
def test_an_unknown_parameter_is_refused_with_the_nearest_known_one(sent: str, near: str) -> None:
    assert messages(**{sent: 1}) == {sent: [f"Unknown parameter. Did you mean {near!r}?"]}


def test_an_unknown_parameter_near_none_is_answered_with_known_ones() -> None:
    (text,) = messages(zzzzzz=1)["zzzzzz"]
    assert "max_tokens" in text and "/docs" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 101, "0.7", True, [], {}, 10**400])
def test_a_temperature_that_is_no_number_in_range_is_refused(value: Any) -> None:
    assert set(messages(temperature=value)) == {"temperature"}


@pytest.mark.parametrize("value", [0, -2, 1.5, "5", True, math.nan, math.inf, []])
def test_a_max_tokens_that_is_no_count_is_refused(value: Any) -> None:
    assert set(messages(max_tokens=value)) == {"max_tokens"}


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert load(max_tokens=5.0) == {"max_tokens": 5}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("top_p", -0.01, 1.01),
        ("min_p", -0.01, 1.01),
        ("typical_p", -0.01, 1.01),
        ("repeat_penalty", 0, 10.1),
        ("frequency_penalty", -10.1, 10.1),
        ("presence_penalty", -10.1, 10.1),
        ("seed", -2, 2**32),
        ("logprobs", -1, 21),
        ("mirostat", -1, 3),
        ("mirostat_tau", -1, 101),
        ("mirostat_eta", -0.1, 1.1),
    ],
)
def test_values_out_of_range_are_refused(name: str, low: float, high: float) -> None:
    assert set(messages(**{name: low})) == set(messages(**{name: high})) == {name}


def test_stop_is_a_string_or_a_list_and_may_be_empty() -> None:
    assert load(stop="a") == {"stop": ["a"]}
    assert load(stop=["a", "b"]) == {"stop": ["a", "b"]}
    assert load(stop=[]) == {"stop": []}


@pytest.mark.parametrize("value", ["", [""], ["a", 3], 3, {"a": 1}, ["x"] * (MAX_STOPS + 1), ["x" * 1025], [None]])
def test_stop_strings_that_cannot_be_are_refused(value: Any) -> None:
    assert set(messages(stop=value)) == {"stop"}


def test_stop_tokens_are_token_ids() -> None:
    assert load(stop_token_ids=[2, 5.0]) == {"stop_token_ids": [2, 5]}
    assert load(stop_token_ids=[]) == {}
    assert SamplingParams.build({}, load(stop_token_ids=[2])).stop_token_ids == (2,)
    assert SamplingParams.build({}, load()).stop_token_ids == ()


@pytest.mark.parametrize("value", [2, "2", [-1], ["2"], [True], [None], [2**31], [1] * 129, {}])
def test_stop_tokens_that_cannot_be_are_refused(value: Any) -> None:
    assert set(messages(stop_token_ids=value)) == {"stop_token_ids"}


def test_logit_bias_takes_token_ids_as_texts() -> None:
    assert load(logit_bias={"17": -100, "3": 1.5}) == {"logit_bias": {"17": -100.0, "3": 1.5}}
    assert SamplingParams.build({}, load(logit_bias={"17": -100})).logit_bias == {17: -100.0}


@pytest.mark.parametrize(
    "value",
    [{"x": 1}, {"-1": 1}, {"1.5": 1}, {"٣": 1}, {"1": math.nan}, {"1": 101}, {"1": "1"}, [[1, 2]], {"9" * 12: 1}],
)
def test_logit_biases_that_cannot_be_are_refused(value: Any) -> None:
    assert set(messages(logit_bias=value)) == {"logit_bias"}


def test_too_many_logit_biases_are_refused() -> None:
    assert "1024" in messages(logit_bias={str(token): 1 for token in range(1025)})["logit_bias"][0]


def test_grammar_and_json_schema_exclude_each_other() -> None:
    (text,) = messages(grammar='root ::= "a"', json_schema={"type": "object"})["json_schema"]
    assert "grammar and json_schema" in text


@pytest.mark.parametrize("value", ["", "[]", "x", [], {"a": math.nan}, {"a": "\ud800"}, {"a": "x" * 70_000}])
def test_json_schemas_that_cannot_be_are_refused(value: Any) -> None:
    assert set(messages(json_schema=value)) == {"json_schema"}


@pytest.mark.parametrize("name", ["grammar", "regex", "suffix"])
@pytest.mark.parametrize("value", ["a\0b", "\udfff", "x" * 70_000, 3])
def test_texts_that_cannot_be_are_refused(name: str, value: Any) -> None:
    assert set(messages(**{name: value})) == {name}


@pytest.mark.parametrize("name", ["echo", "ignore_eos", "do_sample"])
@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_a_flag_is_true_or_false(name: str, value: Any) -> None:
    assert messages(**{name: value}) == {name: ["Must be true or false."]}
