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
    ],
)
def test_a_name_that_is_nearly_known_is_recognised(name: str, near: str) -> None:
    assert nearest_name(name, [*PARAMETERS, "best_of"]) == near


@pytest.mark.parametrize(
    "name", ["foo", "system", "images", "num_gpu", "text", "x", "", "_", "\ud800", "prompt", "input", "usage_of_all"]
)
def test_a_name_that_is_near_none_gets_no_hint(name: str) -> None:
    assert nearest_name(name, [one for one in PARAMETERS if one not in ("prompt", "input", "usage")]) is None


def test_add_generation_prompt_is_not_moderation() -> None:
    assert nearest_name("add_generation_prompt", ["moderation", "safe_prompt", "prompt_cache_key"]) is None


def test_a_long_name_is_compared_by_its_beginning() -> None:
    assert nearest_name("x" * 1_000_000, PARAMETERS) is None
