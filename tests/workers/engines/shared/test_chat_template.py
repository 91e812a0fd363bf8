"""Conversations through templates in the style of those of real models: ChatML, Llama 3, Qwen, Mistral."""

import contextlib
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError, InvalidRequest, UnsupportedParameter
from app.jobs.job import Chat
from workers.engines.shared.chat_template import ChatTemplate, configured_template

TEMPLATES = Path(__file__).parent / "chat_templates"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "function0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "How is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "function0"},
]


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
    broken = ChatTemplate("{{ messages[0].content.secret.more }}")
    with pytest.raises(InvalidRequest, match="UndefinedError") as caught:
        broken.render(Chat(messages=[{"role": "user", "content": "password"}]))
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
    with pytest.raises(InvalidRequest, match="SecurityError"):
        ChatTemplate(source + "{{ raise_exception('it left') }}").render(Chat(messages=[HELLO]))


def test_a_request_may_set_what_else_the_template_reads_but_not_the_messages() -> None:
    variables = {"enable_thinking": False, "messages": [], "add_generation_prompt": False}
    assert rendered("qwen", HELLO, variables=variables).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_developer_is_the_system_where_the_template_knows_none() -> None:
    developer = {"role": "developer", "content": "Be brief."}
    assert "<|im_start|>system\nBe brief." in rendered("qwen", developer, HELLO)
    knows = ChatTemplate("{% if messages[0].role == 'developer' %}known{% endif %}")
    assert knows.render(Chat(messages=[developer])) == "known"


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


@pytest.mark.parametrize("with_tools", [True, False])
def test_arguments_that_nest_too_deep_are_a_text_or_a_rejection_and_no_failure(with_tools: bool) -> None:
    shown = ChatTemplate("{{ tools }}{{ messages[0].tool_calls[0].function | tojson }}" if with_tools else None)

    def render(arguments: str) -> str:
        call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        return shown.render(Chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}]))

    assert f'"arguments": "{"[" * 100_000}"' in render("[" * 100_000)
    for depth in range(900, 1000, 3):
        with contextlib.suppress(InvalidRequest):
            assert "[[[" in render("[" * depth + "]" * depth)


def test_a_template_of_its_own_serves_conversations_with_tools() -> None:
    two = ChatTemplate("plain", tool_source="{{ tools | length }} tools")
    assert two.render(Chat(messages=[HELLO])) == "plain"
    assert two.render(Chat(messages=[HELLO], tools=[WEATHER])) == "1 tools"


def test_marks_for_training_mean_nothing_here() -> None:
    marked = ChatTemplate("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    assert marked.render(Chat(messages=[HELLO])) == "Hello"


def test_an_invalid_template_is_logged_and_every_chat_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        broken = ChatTemplate("{% for %}")
    assert "line 1" in caplog.text
    with pytest.raises(UnsupportedParameter, match=r"line 1.*set model_params.chat_template") as caught:
        broken.render(Chat(messages=[HELLO]))
    assert list(caught.value.errors) == ["messages"]


def test_a_configured_template_is_its_source_or_the_path_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    assert configured_template(str(file)) == configured_template("{{ messages }}") == "{{ messages }}"


@pytest.mark.parametrize(("value", "reason"), [("{% for %}", "line 1"), ("/nowhere/chat.jinja", "cannot be read")])
def test_an_invalid_configured_template_stops_the_start(value: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"model_params.chat_template.*{reason}"):
        configured_template(value)
