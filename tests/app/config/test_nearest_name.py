import pytest

from app.api.schemas.openai.chat import ChatSchema
from app.config.nearest_name import nearest_name

PARAMETERS = sorted(ChatSchema().load_fields)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("temprature", "temperature"),
        ("topk", "top_k"),
        ("streaming", "stream"),
        ("best_of_n", "best_of"),
        ("stop_words", "stop"),
        ("chat_template_kwarg", "chat_template_kwargs"),
        ("sotp", "stop"),
        ("responsformat", "response_format"),
        ("presense_penalty", "presence_penalty"),
        ("topLogProbs", "top_logprobs"),
    ],
)
def test_a_name_that_is_nearly_known_is_recognised(name: str, near: str) -> None:
    assert nearest_name(name, [*PARAMETERS, "best_of"]) == near


@pytest.mark.parametrize(
    "name", ["foo", "system", "images", "num_gpu", "text", "x", "", "_", "\ud800", "prompt", "input", "usage_of_all"]
)
def test_a_name_that_is_near_none_gets_no_hint(name: str) -> None:
    assert nearest_name(name, [one for one in PARAMETERS if one not in ("prompt", "input", "usage")]) is None


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("max_prompt_tokens", "max_output_tokens"),
        ("tokens", "min_tokens"),
        ("min_length", "max_length"),
        ("guided_decoding", "guided_decoding_backend"),
        ("sampler_seq", "samplers"),
        ("template", "chat_template"),
        ("thinking_budget", "thinking_token_budget"),
        ("thinking_budget", "thinking"),
        ("input_type", "input"),
    ],
)
def test_a_name_with_another_meaning_is_no_hint(name: str, other: str) -> None:
    assert nearest_name(name, [other]) is None


def test_add_generation_prompt_is_not_moderation() -> None:
    assert nearest_name("add_generation_prompt", ["moderation", "safe_prompt", "prompt_cache_key"]) is None


def test_a_long_name_is_compared_by_its_beginning() -> None:
    assert nearest_name("x" * 1_000_000, PARAMETERS) is None
