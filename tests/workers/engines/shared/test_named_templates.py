"""The prompt formats of models without a chat template, as their authors describe them, and which model gets which."""

from typing import Any

import pytest

from app.jobs.job import Chat
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.configured_template import configured_template
from workers.engines.shared.named_templates import NAMES, template_called, template_of_model

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
RULE = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "What is 2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
SECOND = {"role": "user", "content": "And 3+3?"}
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def rendered(name: str, *messages: dict[str, Any], **more: Any) -> str:
    template = ChatTemplate(configured_template(name), special_tokens=SPECIAL, is_configured=True)
    try:
        return template.render(Chat(messages=list(messages), **more))
    finally:
        template.close()


ONE_QUESTION = {
    "alpaca": f"{ALPACA}\n\n### Instruction:\nWhat is 2+2?\n\n### Response:",
    "chatml": "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
    "koala": "BEGINNING OF CONVERSATION: USER: What is 2+2? GPT:",
    "llama-2": "[INST] What is 2+2? [/INST]",
    "vicuna": f"{VICUNA} USER: What is 2+2? ASSISTANT:",
}
TWO_QUESTIONS = {
    "alpaca": f"{ALPACA}\n\n### Instruction:\nWhat is 2+2?\n\n### Response:4</s>"
    "\n\n### Instruction:\nAnd 3+3?\n\n### Response:",
    "chatml": "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    "<|im_start|>user\nAnd 3+3?<|im_end|>\n<|im_start|>assistant\n",
    "koala": "BEGINNING OF CONVERSATION: USER: What is 2+2? GPT: 4</s>USER: And 3+3? GPT:",
    "llama-2": "[INST] What is 2+2? [/INST] 4 </s><s>[INST] And 3+3? [/INST]",
    "vicuna": f"{VICUNA} USER: What is 2+2? ASSISTANT: 4</s>USER: And 3+3? ASSISTANT:",
}
WITH_RULE = {
    "alpaca": "Be brief.\n\n### Instruction:\nWhat is 2+2?\n\n### Response:",
    "chatml": f"<|im_start|>system\nBe brief.<|im_end|>\n{ONE_QUESTION['chatml']}",
    "koala": "BEGINNING OF CONVERSATION: USER: Be brief.\n\nWhat is 2+2? GPT:",
    "llama-2": "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is 2+2? [/INST]",
    "vicuna": "Be brief. USER: What is 2+2? ASSISTANT:",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_is_written_in_the_published_format(name: str) -> None:
    assert rendered(name, FIRST) == ONE_QUESTION[name]
    assert rendered(name, FIRST, ANSWER, SECOND) == TWO_QUESTIONS[name]
    assert rendered(name, RULE, FIRST) == WITH_RULE[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_can_be_continued_and_nothing_is_lost(name: str) -> None:
    assert rendered(name, FIRST, ANSWER) == TWO_QUESTIONS[name].partition("4")[0] + "4"
    late = {"role": "system", "content": "Be kind."}
    text = rendered(name, RULE, FIRST, ANSWER, late, SECOND, tools=[WEATHER])
    for words in ("Be brief.", "What is 2+2?", "4", "Be kind.", "And 3+3?", '"name": "weather"'):
        assert words in text


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("llama2", "llama-2"),
        ("Llama_2", "llama-2"),
        ("vicuna_v1.1", "vicuna"),
        ("koala_v1", "koala"),
        ("ChatML", "chatml"),
    ],
)
def test_names_of_other_programs_are_known(other: str, name: str) -> None:
    assert template_called(other) == template_called(name) is not None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("ggml-vicuna-13b-1.1-q4_2", "vicuna"),
        ("Wizard-Vicuna-7B-Uncensored.Q4_0", "vicuna"),
        ("alpaca-native-7B-ggml", "alpaca"),
        ("gpt4-x-alpaca-13b", "alpaca"),
        ("koala-7B.ggmlv3.q4_0", "koala"),
        ("llama-2-7b-chat.ggmlv3.q4_K_M", "llama-2"),
        ("Llama_2_13b_Chat_hf", "llama-2"),
        ("llama-2-7b", None),
        ("stable-vicuna-13B", None),
        ("gpt4-x-vicuna-13B", None),
        ("chinese-alpaca-2-7b", None),
        ("vicuna-7b-v0", None),
        ("alpaca-vicuna-mix", None),
        ("SmolLM2-135M", None),
    ],
)
def test_a_models_name_speaks_for_a_format_or_for_none(model: str, name: str | None) -> None:
    found = template_of_model([None, "", model])
    assert (found.name if found else None) == name


def test_the_log_names_the_format_of_a_model_without_a_template(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    koala = template_called("koala")
    assert koala is not None
    for source, name in ((None, "chatml"), (koala.source, "koala")):
        caplog.clear()
        template = ChatTemplate(source, special_tokens=SPECIAL)
        template.check()
        template.close()
        assert f"chats are written as {name}; model_params.chat_template sets another" in caplog.text
    caplog.clear()
    template = ChatTemplate(koala.source, special_tokens=SPECIAL, is_configured=True)
    template.check()
    template.close()
    assert caplog.text == "", "the operator knows"
