"""Conversations through templates in the style of those of real models: ChatML, Llama 3, Qwen, Mistral."""

import contextlib
import logging
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError, InvalidRequest, UnsupportedParameter
from app.jobs.job import Chat
from workers.engines.shared.chat_template import ChatTemplate, opens_thoughts

TEMPLATES = Path(__file__).parent / "chat_templates"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "function0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "How is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "function0"},
]


@lru_cache
def template(name: str) -> ChatTemplate:
    return ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(), special_tokens=SPECIAL)


def rendered(name: str, *messages: dict[str, Any], **more: Any) -> str:
    return template(name).render(Chat(messages=list(messages), **more))


def test_a_model_without_a_template_gets_chatml() -> None:
    messages = [{"role": "system", "content": "Be brief."}, HELLO]
    assert ChatTemplate(None).render(Chat(messages=messages)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama_3_gets_its_headers_and_the_date() -> None:
    prompt = rendered("llama3", {"role": "system", "content": "Be brief. "}, HELLO)
    assert prompt == (
        f"<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: {datetime.now().year}\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama_3_gets_tools_and_calls_with_their_arguments_as_an_object() -> None:
    prompt = rendered("llama3", *CALLED, tools=[WEATHER])
    assert '    "function": {\n        "name": "weather"' in prompt
    assert '{"name": "weather", "parameters": {"city": "Zürich"}}<|eot_id|>' in prompt
    assert prompt.endswith(
        "ipython<|end_header_id|>\n\nsunny<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_qwen_gets_tools_calls_and_results() -> None:
    prompt = rendered("qwen", *CALLED, tools=[WEATHER])
    assert (
        '<tools>\n{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}\n' in prompt
    )
    assert '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call><|im_end|>\n' in prompt
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n" in prompt


def test_mistral_gets_tools_at_the_last_question_and_calls_by_their_ids() -> None:
    prompt = rendered("mistral", *CALLED, tools=[WEATHER])
    assert prompt == (
        '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'
        "[/AVAILABLE_TOOLS][INST] How is it?[/INST]"
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Zürich"}, "id": "function0"}]</s>'
        '[TOOL_RESULTS] {"content": sunny, "call_id": "function0"}[/TOOL_RESULTS]'
    )


def test_an_error_of_a_template_keeps_its_text_and_names_the_messages() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        rendered("mistral", HELLO, HELLO)
    assert list(caught.value.errors) == ["messages"]


def test_a_template_that_fails_at_the_messages_quotes_nothing_of_them() -> None:
    broken = ChatTemplate(
        "{{ messages[0].content }}\n{% if messages | length > 1 %}{{ {}[messages[1].content].more }}{% endif %}"
    )
    with pytest.raises(InvalidRequest, match="line 2: UndefinedError") as caught:
        broken.render(Chat(messages=[HELLO, {"role": "user", "content": "password"}]))
    assert "password" not in caught.value.detail


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__.os.getcwd() }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    hidden = "{% if messages | length > 2 %}" + source + "{{ raise_exception('it left') }}{% endif %}"
    with pytest.raises(InvalidRequest, match="SecurityError"):
        ChatTemplate("{{ messages[0].content }}" + hidden).render(Chat(messages=[HELLO, HELLO, HELLO]))


def test_a_request_may_set_what_else_the_template_reads_but_not_the_messages() -> None:
    variables = {"enable_thinking": False, "messages": [], "add_generation_prompt": False}
    assert rendered("qwen", HELLO, variables=variables).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_developer_is_the_system_where_the_template_knows_none() -> None:
    developer = {"role": "developer", "content": "Be brief."}
    assert "<|im_start|>system\nBe brief." in rendered("qwen", developer, HELLO)
    knows = ChatTemplate(
        "{% for m in messages %}{% if m.role == 'developer' %}known {% endif %}{{ m.content }}{% endfor %}"
    )
    assert knows.render(Chat(messages=[developer])) == "known Be brief."


def test_tools_go_into_a_system_message_where_the_template_has_none() -> None:
    prompt = ChatTemplate(None).render(
        Chat(messages=[{"role": "system", "content": "Be brief."}, HELLO], tools=[WEATHER])
    )
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\nYou may call one or more functions")
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in prompt
    assert ChatTemplate(None).render(Chat(messages=[HELLO], tools=[WEATHER])).count("<|im_start|>system") == 1


def test_calls_and_results_are_texts_where_the_template_knows_no_tools() -> None:
    prompt = ChatTemplate(None).render(Chat(messages=CALLED))
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
        in prompt
    )
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>" in prompt


def test_arguments_that_are_no_json_are_shown_as_the_model_wrote_them() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{oops"}}
    messages = [HELLO, {"role": "assistant", "tool_calls": [call]}]
    assert '"arguments": "{oops"' in ChatTemplate(None).render(Chat(messages=messages))


@pytest.mark.parametrize("shown", [template("qwen"), ChatTemplate(None)], ids=["with tools", "without"])
def test_arguments_that_nest_too_deep_are_a_text_or_a_rejection_and_no_failure(shown: ChatTemplate) -> None:

    def render(arguments: str) -> str:
        call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        return shown.render(Chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}]))

    assert f'"arguments": "{"[" * 100_000}"' in render("[" * 100_000)
    for depth in range(900, 1000, 3):
        with contextlib.suppress(InvalidRequest):
            assert "[[[" in render("[" * depth + "]" * depth)


def test_a_template_of_its_own_serves_conversations_with_tools() -> None:
    two = ChatTemplate("{{ messages[-1].content }}", tool_source="{{ tools }}{{ messages[-1].content }}")
    assert two.render(Chat(messages=[HELLO])) == "Hello"
    assert "'name': 'weather'" in two.render(Chat(messages=[HELLO], tools=[WEATHER]))


def test_marks_for_training_mean_nothing_here() -> None:
    marked = ChatTemplate("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    assert marked.render(Chat(messages=[HELLO])) == "Hello"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{% for %}", "line 1"),
        ("{{ messages[0].role }}", "it loses the text of messages"),
        ("{{ raise_exception('for images only') }}", "for images only"),
        ("{{ messages[0].content }}\n{{ missing.name }}", "line 2: UndefinedError: 'missing' is undefined"),
        ("{{ messages[0].content }}{{ range(10 ** 6) }}", "line 1: OverflowError: Range too big"),
        ("{{ messages[0].content + '' }}{{ missing.name }}", "line 1: UndefinedError: 'missing' is undefined"),
        ("{{ messages[0].content }}" + LOOP, "it took"),
    ],
    ids=["no template", "no text", "raises", "undefined", "overflow", "undefined for texts", "loops"],
)
def test_a_template_that_works_in_no_form_is_logged_at_load_and_every_chat_refused(
    caplog: pytest.LogCaptureFixture, source: str, fault: str
) -> None:
    broken = ChatTemplate(source)
    with caplog.at_level(logging.WARNING):
        broken.check()
    assert fault in caplog.text
    with pytest.raises(UnsupportedParameter, match=rf"{fault}.*set model_params.chat_template") as caught:
        broken.render(Chat(messages=[HELLO]))
    assert list(caught.value.errors) == ["messages"]
    with pytest.raises(ConfigError, match=rf"model_params.chat_template cannot be used: .*{fault}"):
        ChatTemplate(source, is_configured=True).check()


def test_a_template_that_reads_parts_gets_parts() -> None:
    prompt = rendered("llama_guard", {"role": "system", "content": "Be strict."}, HELLO)
    assert "User: Be strict.\n\nHello\n\n<END CONVERSATION>" in prompt


def test_a_template_that_concatenates_arguments_and_wants_none_beside_calls_gets_both() -> None:
    prompt = rendered("deepseek", *CALLED, tools=[WEATHER])
    assert '<|call|>function<|sep|>weather\n```json\n{"city": "Zürich"}\n```<|end|>' in prompt
    assert "<|result|>sunny<|end|>" in prompt


def test_the_text_of_a_message_that_calls_stands_before_the_calls_where_the_template_shows_one_of_them() -> None:
    asks, calls, result = CALLED
    prompt = rendered("deepseek", asks, {**calls, "content": "Let me look."}, result, tools=[WEATHER])
    assert "<|Assistant|>Let me look.</s><|Assistant|><|calls|><|call|>function<|sep|>weather" in prompt


def test_arguments_that_are_an_object_in_a_text_are_shown_as_json_not_as_python_writes_them() -> None:
    """A template that writes `{{ arguments }}` shows Python's quotes for an object, and JSON for a text."""
    source = (
        "{{ tools }}{% for m in messages %}{{ m.content }}"
        "{% for call in m.tool_calls %}{{ call.function.name }} {{ call.function.arguments }}{% endfor %}{% endfor %}"
    )
    prompt = ChatTemplate(source).render(Chat(messages=CALLED, tools=[WEATHER]))
    assert 'weather {"city": "Zürich"}' in prompt


def test_the_systems_texts_stand_before_the_question_where_the_template_has_no_system() -> None:
    rules = [{"role": "system", "content": "Be brief."}, {"role": "system", "content": "Be kind."}]
    assert rendered("gemma", *rules, HELLO) == (
        "<s><start_of_turn>user\nBe brief.\n\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\n"
    )
    assert rendered("gemma", *rules).startswith("<s><start_of_turn>user\nBe brief.\n\nBe kind.<end_of_turn>")


@pytest.mark.parametrize("name", ["qwen", "qwen_thinking", "mistral"])
def test_two_system_messages_are_one_where_the_template_takes_one(name: str) -> None:
    first, second = {"role": "system", "content": "Be brief."}, {"role": "system", "content": "Be kind."}
    prompt = rendered(name, first, HELLO, {"role": "assistant", "content": "Hi."}, second, HELLO)
    assert prompt == rendered(
        name,
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        HELLO,
        {"role": "assistant", "content": "Hi."},
        HELLO,
    )
    if "mistral" not in name:
        assert "system\nBe brief.\n\nBe kind.<|im_end|>" in prompt


def test_system_messages_stay_where_they_are_if_the_template_takes_them_there() -> None:
    rule = {"role": "system", "content": "Be brief."}
    assert ChatTemplate(None).render(Chat(messages=[HELLO, rule, HELLO])).count("<|im_start|>system\nBe brief.") == 1


def test_a_prompt_ends_within_thoughts_if_the_template_has_begun_them() -> None:
    chat = Chat(messages=[HELLO])
    for name in ("deepseek", "qwen_thinking"):
        assert opens_thoughts(rendered(name, HELLO), chat)
    assert not opens_thoughts(rendered("qwen_thinking", HELLO, variables={"enable_thinking": False}), chat)
    asks_about_tags = {"role": "user", "content": "What is <think>"}
    assert not opens_thoughts(rendered("qwen", asks_about_tags), Chat(messages=[asks_about_tags]))


def test_thoughts_that_the_last_message_has_begun_are_continued_as_thoughts() -> None:
    for text, within in (("<think>\nLet me see", True), ("<think>\nLet me see</think>Well", False), ("Well", False)):
        chat = Chat(messages=[HELLO, {"role": "assistant", "content": text}])
        prompt = ChatTemplate(None).render(chat)
        assert prompt.endswith(text)
        assert opens_thoughts(prompt, chat) is within


PREFILL = {"role": "assistant", "content": "The answer is "}


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("qwen", "<|im_start|>assistant\nThe answer is "),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\nThe answer is "),
        ("mistral", "[INST] Hello[/INST] The answer is "),
        ("gemma", "<start_of_turn>model\nThe answer is "),
        ("deepseek", "<|Assistant|>The answer is "),
        ("llama_guard", "User: Hello\n\nAgent: The answer is"),
    ],
)
def test_the_last_message_of_the_assistant_is_continued(name: str, end: str) -> None:
    trims = "llama_guard" in name  # on both sides, but the mark is at the end
    for more in ({}, {"continues": True}, {"continues": True, "add_generation_prompt": False}):
        prompt = rendered(name, HELLO, PREFILL, **more)
        assert prompt.endswith(end + " " * trims)
    assert rendered(name, HELLO, {**PREFILL, "prefix": True}) == rendered(name, HELLO, PREFILL)


def test_the_last_message_of_the_assistant_ends_where_the_client_wants_a_new_one() -> None:
    for more in ({"continues": False}, {"add_generation_prompt": True}):
        prompt = rendered("qwen", HELLO, PREFILL, **more)
        assert prompt.endswith("assistant\nThe answer is <|im_end|>\n<|im_start|>assistant\n")


def test_a_users_last_message_is_continued_only_if_the_client_wants_it() -> None:
    assert rendered("qwen", HELLO, continues=True).endswith("<|im_start|>user\nHello")
    assert rendered("qwen", HELLO).endswith("<|im_start|>assistant\n")


def test_a_message_that_calls_tools_cannot_be_continued() -> None:
    with pytest.raises(InvalidRequest, match="the last message calls tools"):
        rendered("qwen", *CALLED[:2], continues=True)
    assert rendered("qwen", *CALLED[:2]).endswith("</tool_call><|im_end|>\n<|im_start|>assistant\n")


def test_without_a_generation_prompt_the_prompt_ends_with_the_last_message() -> None:
    assert rendered("qwen", HELLO, add_generation_prompt=False).endswith("user\nHello<|im_end|>\n")
    assert rendered("qwen", HELLO, PREFILL, add_generation_prompt=False).endswith("The answer is <|im_end|>\n")


def test_a_template_that_does_not_show_the_last_message_gets_a_new_one_unless_the_client_insists() -> None:
    users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    forgets = ChatTemplate(users + "{% if add_generation_prompt %}>{% endif %}")
    assert forgets.render(Chat(messages=[HELLO, PREFILL])) == "Hello>"
    for chat in (
        Chat(messages=[HELLO, PREFILL], continues=True),
        Chat(messages=[HELLO, {**PREFILL, "prefix": True}]),
    ):
        with pytest.raises(InvalidRequest, match="cannot be continued"):
            forgets.render(chat)


SLOW = "{% if m.content == 'slow' %}" + LOOP + "{% endif %}"
LARGE = "{% if m.content == 'large' %}{{ m.content * 10 ** 9 }}{% endif %}"


def test_a_chat_that_takes_the_template_too_long_or_too_much_memory_is_rejected_and_the_next_is_rendered() -> None:
    hostile = ChatTemplate("{% for m in messages %}{{ m.content }}" + SLOW + LARGE + "{% endfor %}")
    for text, limit in (("slow", "it took"), ("large", "it needs more than 512 MB of memory")):
        with pytest.raises(InvalidRequest, match=f"{limit}.*shorten them") as caught:
            hostile.render(Chat(messages=[{"role": "user", "content": text}]))
        assert list(caught.value.errors) == ["messages"]
        assert hostile.render(Chat(messages=[HELLO])) == "Hello"
