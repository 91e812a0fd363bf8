import pytest

from app.errors import PromptTooLong

LOOKED_FOR = {
    "litellm": "This model's maximum context length is",
    "langchain-openai": "prompt is too long",  # it sees no code: openai 3 has the message alone in its exceptions' text
    "autogen": "maximum context length is 512 tokens. However, you requested 601 tokens",
    "openhands": "Please reduce the length of",
}


@pytest.mark.parametrize("program", LOOKED_FOR)
def test_a_prompt_that_is_too_long_is_described_in_the_words_that_clients_look_for(program: str) -> None:
    error = PromptTooLong.for_context("messages", tokens=600, context_tokens=512)
    assert LOOKED_FOR[program] in error.detail


def test_a_prompt_that_is_too_long_names_its_field_both_lengths_and_the_cure() -> None:
    error = PromptTooLong.for_context("messages", tokens=512, context_tokens=512, cure="raise model_params.n_ctx")
    assert error.detail == (
        "This model's maximum context length is 512 tokens. However, you requested 513 tokens (512 in messages, 1 in "
        "the completion): the prompt is too long. Please reduce the length of messages or raise model_params.n_ctx."
    )
    assert error.errors == {"messages": [error.detail]}


def test_a_text_to_embed_has_no_completion() -> None:
    error = PromptTooLong.for_context("text.1", tokens=513, context_tokens=512, completion_tokens=0)
    assert "513 tokens (513 in text.1, 0 in the completion)" in error.detail
