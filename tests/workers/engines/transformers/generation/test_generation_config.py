"""Every argument of `GenerationConfig` does in a batch what it does in `generate()`."""

from typing import Any

import pytest
from transformers import GenerationConfig

from app.api.schemas.sampling import SamplingSchema
from app.errors import InvalidRequest, UnsupportedParameter
from app.jobs.job import FinishReason
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, refusal, request
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.generation.arguments import KNOWN

PROMPT = "etsof vngrkpiretsof vngrkpir"  # of which the tiny model makes 16 tokens before it ends by itself
NEIGHBOURS = [request("somebody else", max_tokens=30), request("and one more", max_tokens=12, temperature=0.9, seed=5)]
SAMPLED = {"do_sample": True, "top_k": 0}
SCHEMA = SamplingSchema(partial=True)

ROWS: list[dict[str, Any]] = [
    {"do_sample": True},
    {**SAMPLED, "temperature": 0.5},
    {**SAMPLED, "temperature": 1.7},
    {"do_sample": True, "top_k": 3},
    {**SAMPLED, "top_p": 0.6},
    {**SAMPLED, "min_p": 0.2},
    {**SAMPLED, "top_h": 0.4},
    {**SAMPLED, "typical_p": 0.5},
    {**SAMPLED, "epsilon_cutoff": 0.02},
    {**SAMPLED, "eta_cutoff": 0.02},
    {**SAMPLED, "top_p": 0.8, "renormalize_logits": True},
    {"repetition_penalty": 1.5},
    {"encoder_repetition_penalty": 2.0},
    {"no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 1},
    {"forced_eos_token_id": 65, "max_length": 40},
    {"remove_invalid_values": True},
    {"exponential_decay_length_penalty": [3, 1.8]},
    {"watermarking_config": {"greenlist_ratio": 0.3, "bias": 40.0}},
    {**SAMPLED, "watermarking_config": {"greenlist_ratio": 0.4, "bias": 4.0, "seeding_scheme": "selfhash"}},
    {"min_new_tokens": 20},
    {"max_length": 41},
]
SOLO: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 3, "length_penalty": 3.0},
    {"num_beams": 2, "early_stopping": True},
    {"num_beams": 3, "do_sample": True, "top_k": 5},
    {"num_beams": 2, "stop_strings": ["a"]},
    {"guidance_scale": 1.5},
    {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 2},
    {"use_cache": False},
    {"cache_implementation": "dynamic"},
    {"cache_implementation": "static"},
]
WITHOUT_EFFECT: list[dict[str, Any]] = [
    {"disable_compile": True},
    {"prefill_chunk_size": 4},
    {"num_assistant_tokens": 3},
    {"num_assistant_tokens_schedule": "constant"},
    {"assistant_lookbehind": 2},
    {"target_lookbehind": 2},
    {"pad_token_id": 5},
    {"bos_token_id": 5},
    {"low_memory": True},
    {"output_scores": False},
    {"num_return_sequences": 1},
    {"num_beams": 1},
]


def of_api(arguments: dict[str, Any]) -> Any:
    """The request as the API passes it on."""
    return request(PROMPT, **SCHEMA.load({"max_length": 70, "seed": 11, **arguments}))


def name_of(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def check(engine: HuggingfaceEngine, arguments: dict[str, Any]) -> list[int]:
    result, *_ = complete(engine, of_api(arguments), *NEIGHBOURS)
    assert result.tokens == generated(engine, PROMPT, seed=11, **{"max_length": 70, **arguments})
    return result.tokens


@pytest.mark.parametrize("arguments", ROWS, ids=name_of)
def test_an_argument_of_a_row_does_what_it_does_in_generate(
    llama: HuggingfaceEngine, arguments: dict[str, Any]
) -> None:
    assert not llama.prepare(of_api(arguments)).solo
    check(llama, arguments)


@pytest.mark.parametrize("arguments", SOLO, ids=name_of)
def test_another_way_of_decoding_does_what_it_does_in_generate(
    llama: HuggingfaceEngine, arguments: dict[str, Any]
) -> None:
    assert llama.prepare(of_api(arguments)).solo
    if "stop_strings" in arguments:  # generate() leaves the stop string in
        (result, *_) = complete(llama, of_api(arguments), *NEIGHBOURS)
        assert "a" not in result.text
        assert result.reason is FinishReason.STOP
    else:
        check(llama, arguments)


@pytest.mark.parametrize("arguments", WITHOUT_EFFECT, ids=name_of)
def test_an_argument_without_effect_in_generate_has_none_in_a_row(
    llama: HuggingfaceEngine, arguments: dict[str, Any]
) -> None:
    assert not llama.prepare(of_api(arguments)).solo
    assert check(llama, arguments) == check(llama, {})


def test_most_of_these_arguments_change_the_text(llama: HuggingfaceEngine) -> None:
    plain = tuple(generated(llama, PROMPT, seed=11, max_length=70))
    texts = [tuple(check(llama, arguments)) for arguments in ROWS]
    assert sum(text == plain for text in texts) <= 2, "remove_invalid_values has nothing to remove"
    assert len(set(texts)) >= len(texts) - 4


@pytest.mark.parametrize(
    "name", ["suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "logit_bias"]
)
def test_banned_tokens_are_banned_as_in_generate(llama: HuggingfaceEngine, name: str) -> None:
    first, second = generated(llama, PROMPT, max_new_tokens=12)[:2]
    values: dict[str, Any] = {
        "suppress_tokens": [first],
        "begin_suppress_tokens": [first],
        "bad_words_ids": [[first, second]],
        "sequence_bias": [[[first, second], -50], [[second], 1.5]],
        "logit_bias": {str(first): -100.0},
    }
    (result,) = complete(llama, request(PROMPT, **SCHEMA.load({name: values[name], "max_tokens": 12})))
    theirs = {"sequence_bias": [[[first], -100.0]]} if name == "logit_bias" else {name: values[name]}
    if name == "sequence_bias":
        theirs = {name: [[[first, second], -50.0], [[second], 1.5]]}
    assert result.tokens == generated(llama, PROMPT, max_new_tokens=12, **theirs)
    assert result.tokens[:2] != [first, second]


def test_an_end_token_of_the_request_ends_the_text_and_stays_in_it(llama: HuggingfaceEngine) -> None:
    usual = generated(llama, PROMPT, max_new_tokens=12)
    end = usual[4]
    expected = generated(llama, PROMPT, max_new_tokens=12, eos_token_id=[end, 256])
    (result,) = complete(llama, request(PROMPT, eos_token_id=[end, 256], max_tokens=12))
    assert result.tokens == expected
    assert (result.tokens[-1], result.reason) == (end, FinishReason.STOP)


def test_a_forced_first_token_is_forced_where_the_prompt_is_one_token(llama: HuggingfaceEngine) -> None:
    (result,) = complete(llama, request("a", forced_bos_token_id=70, max_tokens=5))
    assert result.tokens == generated(llama, "a", forced_bos_token_id=70, max_new_tokens=5)
    assert result.tokens[0] == 70


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}])
def test_max_time_ends_the_text_after_the_token_of_that_moment(llama: HuggingfaceEngine, more: dict[str, Any]) -> None:
    (result,) = complete(llama, request(PROMPT, max_time=0.0, max_tokens=50, **more))
    assert (len(result.tokens), result.reason) == (1, FinishReason.LENGTH)
    assert result.tokens == generated(llama, PROMPT, max_time=0.0, max_new_tokens=50, **more)


def test_min_length_counts_what_is_generated_as_in_every_family(llama: HuggingfaceEngine) -> None:
    prompt = next(text for text in map(str, range(500)) if len(generated(llama, text, max_new_tokens=30)) < 10)
    (result,) = complete(llama, request(prompt, **SCHEMA.load({"min_length": 15, "max_tokens": 30})))
    assert result.tokens == generated(llama, prompt, min_new_tokens=15, max_new_tokens=30)
    assert len(result.tokens) >= 15


def test_stop_strings_end_the_text_before_them(llama: HuggingfaceEngine) -> None:
    (whole,) = complete(llama, request(PROMPT, max_tokens=30))
    stop = whole.text[10:12]
    (result,) = complete(llama, request(PROMPT, **SCHEMA.load({"stop_strings": stop, "max_tokens": 30})))
    assert result.text == whole.text[: whole.text.index(stop)]
    assert result.reason is FinishReason.STOP


def test_without_any_parameter_the_models_own_generation_config_decides(llama: HuggingfaceEngine) -> None:
    config = llama._loaded.model.generation_config
    config.do_sample, config.temperature, config.repetition_penalty = True, 0.7, 1.3
    try:
        (result,) = complete(llama, request(PROMPT, seed=3, max_tokens=20))
        expected = generated(llama, PROMPT, seed=3, max_new_tokens=20)
        (greedy,) = complete(llama, request(PROMPT, temperature=0, max_tokens=20))
        expected_greedy = generated(llama, PROMPT, do_sample=False, max_new_tokens=20)
    finally:
        config.do_sample = config.temperature = config.repetition_penalty = None
    assert (result.tokens, greedy.tokens) == (expected, expected_greedy)
    assert result.tokens != greedy.tokens


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_h"])
def test_a_request_with_a_parameter_of_sampling_is_sampled(llama: HuggingfaceEngine, name: str) -> None:
    (result,) = complete(llama, request(PROMPT, **SCHEMA.load({name: 0.9, "seed": 4, "max_tokens": 20})))
    assert result.tokens == generated(llama, PROMPT, seed=4, max_new_tokens=20, do_sample=True, **{name: 0.9})


def test_the_api_knows_every_argument_of_the_installed_transformers() -> None:
    assert set(SCHEMA.load_fields) >= KNOWN
    assert set(GenerationConfig().to_dict()) >= KNOWN


def test_the_tests_of_this_file_cover_at_least_20_arguments() -> None:
    covered = {name for arguments in [*ROWS, *SOLO] for name in arguments}
    assert len(covered) >= 20


@pytest.mark.parametrize(
    ("params", "field", "hint"),
    [
        ({"num_beam": 2}, "num_beam", "near it are num_beams"),
        ({"output_scores": True}, "output_scores", "ask for logprobs"),
        ({"num_return_sequences": 2}, "num_return_sequences", "one text"),
        ({"token_healing": True}, "token_healing", "rewrites the prompt"),
        ({"mirostat": 2}, "mirostat", "no mirostat"),
        ({"num_beams": 33}, "num_beams", "from 1 to 32"),
        ({"suppress_tokens": [10**6]}, "suppress_tokens", "no token 1000000"),
        ({"eos_token_id": -1}, "eos_token_id", "no token -1"),
        ({"sequence_bias": [[[10**6], 1.0]]}, "sequence_bias", "no token 1000000"),
        ({"sequence_bias": {"1": 2}}, "sequence_bias", "must be a list"),
        ({"bad_words_ids": [[1]] * 2000}, "bad_words_ids", "more than 1024"),
        ({"cache_implementation": "paged"}, "cache_implementation", "batches by itself"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "no token 999999"),
        ({"max_length": 2}, "max_length", "raise max_length"),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused_by_name_with_a_cure(
    llama: HuggingfaceEngine, params: dict[str, Any], field: str, hint: str
) -> None:
    error = refusal(llama, PROMPT, **params)
    assert isinstance(error, InvalidRequest)
    assert hint in error.errors[f"params.{field}"][0]


@pytest.mark.parametrize(
    "params",
    [
        {"min_p": 7.0, "temperature": 1.0},
        {"typical_p": 0.0, "temperature": 1.0},
        {"no_repeat_ngram_size": "x"},
        {"watermarking_config": {"nonsense": 1}},
        {"exponential_decay_length_penalty": [3]},
        {"bad_words_ids": []},
        {"early_stopping": "perhaps", "num_beams": 2},
        {"suppress_tokens": "all"},
    ],
)
def test_a_value_that_transformers_refuses_fails_the_request_before_it_runs(
    llama: HuggingfaceEngine, params: dict[str, Any]
) -> None:
    assert isinstance(refusal(llama, PROMPT, **params), InvalidRequest)


@pytest.mark.parametrize(
    ("params", "mode"),
    [
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}, "contrastive search"),
        ({"dola_layers": "low"}, "dola generation"),
        ({"num_beams": 4, "num_beam_groups": 2}, "group beam search"),
    ],
)
def test_decoding_that_transformers_fetches_from_the_hub_needs_trust_remote_code(
    llama: HuggingfaceEngine, params: dict[str, Any], mode: str
) -> None:
    error = refusal(llama, PROMPT, **params)
    assert isinstance(error, UnsupportedParameter)
    assert mode in error.detail and "trust_remote_code" in error.detail


def test_parameters_that_leave_no_token_fail_their_own_request() -> None:
    engine = engine_of("llama")
    with pytest.raises(AssertionError, match="contradict each other"):
        complete(engine, request(PROMPT, temperature=1.0, suppress_tokens=list(range(259)), max_tokens=5))
