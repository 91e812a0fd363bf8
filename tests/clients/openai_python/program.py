"""The package `openai`: chat completions and responses, with the helpers that its documentation shows."""

import json
from typing import Any, Literal

import openai
from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
embedding_client = openai.OpenAI(base_url=EMBEDDING_BASE_URL, api_key=KEY, max_retries=0)
QUESTION: Any = {"role": "user", "content": "What is the capital of France?"}
BRIEF: Any = {"model": SERVICE.model, "messages": [QUESTION], "max_tokens": 24, "temperature": 0}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


class GetWeather(BaseModel):
    """The weather in a city."""

    city: str = Field(max_length=20)
    unit: Literal["C", "F"]


@scene
def chat() -> None:
    answer = client.chat.completions.create(**BRIEF)
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert answer.model == SERVICE.model


@scene
def stream() -> None:
    whole = client.chat.completions.create(**BRIEF).choices[0].message.content
    *chunks, last = client.chat.completions.create(**BRIEF, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert last.usage is not None and last.usage.total_tokens > last.usage.prompt_tokens


@scene
def tools() -> None:
    """The parsed message is appended to the history as it is, with `parsed_arguments`."""
    request: Any = {**BRIEF, "max_tokens": 100, "tools": [openai.pydantic_function_tool(GetWeather)]}
    message = (
        client.chat.completions.parse(**request, tool_choice="required", parallel_tool_calls=False).choices[0].message
    )
    assert message.tool_calls
    (call,) = message.tool_calls
    assert isinstance(call.function.parsed_arguments, GetWeather)
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
    request["messages"] = [QUESTION, message, result]
    answer = client.chat.completions.create(**request, tool_choice="none").choices[0].message
    assert answer.content and not answer.tool_calls
    request["messages"] += [answer, QUESTION]
    assert client.chat.completions.parse(**request, tool_choice="none").choices[0].message.content


@scene
def structured_output() -> None:
    """The parsed message is appended to the history as it is, with `parsed`."""
    request: Any = {**BRIEF, "max_tokens": 100, "response_format": City}
    message = client.chat.completions.parse(**request).choices[0].message
    assert isinstance(message.parsed, City)
    request["messages"] = [QUESTION, message, {"role": "user", "content": "And another?"}]
    assert isinstance(client.chat.completions.parse(**request).choices[0].message.parsed, City)
    with client.chat.completions.stream(**request) as events:
        assert isinstance(events.get_final_completion().choices[0].message.parsed, City)


@scene
def embeddings() -> None:
    answer = embedding_client.embeddings.create(model=SERVICE.embedding_model, input=["a cat", "a dog"])
    assert [len(item.embedding) for item in answer.data] == [SERVICE.embedding_dimensions] * 2


@scene
def responses() -> None:
    request: Any = {"model": SERVICE.model, "input": QUESTION["content"], "max_output_tokens": 24, "temperature": 0}
    first = client.responses.create(**request)
    assert first.output_text
    with client.responses.stream(**request) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == first.output_text
    counted = client.responses.input_tokens.count(model=SERVICE.model, input=QUESTION["content"])
    assert first.usage is not None and counted.input_tokens == first.usage.input_tokens
    request["max_output_tokens"] = 100
    assert isinstance(client.responses.parse(**request, text_format=City).output_parsed, City)
    request["tools"] = [openai.pydantic_function_tool(GetWeather)]
    called = client.responses.parse(**request, tool_choice="required", parallel_tool_calls=False)
    (call,) = called.output
    assert call.type == "function_call" and isinstance(call.parsed_arguments, GetWeather)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
    request["input"] = [QUESTION, *called.output, output]
    assert client.responses.parse(**request, tool_choice="none").output_text


@scene
def members_of_other_servers_come_back() -> None:
    """A history that was begun with OpenRouter, Anthropic through a gateway, or vLLM."""
    past = {
        "role": "assistant",
        "content": "Paris.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "reasoning": "France, its capital",
        "reasoning_details": [{"type": "reasoning.text", "text": "France"}],
        "provider_specific_fields": {"thinking_blocks": []},
        "extra_content": {"google": {"thought_signature": "x"}},
    }
    part = {"type": "text", "text": "And of Spain?", "cache_control": {"type": "ephemeral"}}
    tool: Any = {**openai.pydantic_function_tool(GetWeather), "cache_control": {"type": "ephemeral"}}
    request = {**BRIEF, "messages": [QUESTION, past, {"role": "user", "content": [part]}]}
    assert client.chat.completions.create(**request, tools=[tool], tool_choice="none").choices[0].message.content


@scene
def vllm_arguments() -> None:
    """What users of vLLM send in `extra_body`."""

    def text(**extra_body: Any) -> str | None:
        return client.chat.completions.create(**BRIEF, extra_body=extra_body).choices[0].message.content

    assert text(guided_choice=["yes", "no"]) in ("yes", "no")
    assert text(structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert City.model_validate_json(text(guided_json=City.model_json_schema(), max_tokens=100) or "")
    begun: Any = {"role": "assistant", "content": "The capital of France is Par"}
    request: Any = {**BRIEF, "messages": [QUESTION, begun]}
    request["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False, "top_k": -1}
    continued = client.chat.completions.create(**request).choices[0].message.content
    assert continued is not None and continued.startswith("is")


@scene
def errors() -> None:
    try:
        client.chat.completions.create(**{**BRIEF, "messages": [{"role": "user", "content": "word " * 20000}]})
        raise AssertionError("it was accepted")
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error
        assert f"maximum context length is {SERVICE.context_tokens} tokens" in error.message, error
    try:
        client.chat.completions.create(**{**BRIEF, "model": "no-such-model"})
        raise AssertionError("it was accepted")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error


@scene
def a_call_cut_off() -> None:
    """The list of calls ends at the limit: what is complete is a call, and nothing of the rest is content."""
    request: Any = {**BRIEF, "max_tokens": 40, "tools": [openai.pydantic_function_tool(GetWeather)]}
    choice = client.chat.completions.create(**request, tool_choice="required").choices[0]
    assert not choice.message.content, choice.message.content
    assert all(
        GetWeather.model_validate(json.loads(call.function.arguments)) for call in choice.message.tool_calls or []
    )
    assert choice.finish_reason in ("tool_calls", "length")


@scene
def responses_are_continued_and_read_again() -> None:
    request: Any = {"model": SERVICE.model, "max_output_tokens": 24, "temperature": 0}
    first = client.responses.create(**request, input=QUESTION["content"])
    again = client.responses.create(**request, input="And of Spain?", previous_response_id=first.id)
    events = list(client.responses.create(**request, input=[QUESTION, *first.output, QUESTION], stream=True))
    created, last = events[0], events[-1]
    assert created.type == "response.created" and last.type in ("response.completed", "response.incomplete")
    rest = client.responses.retrieve(created.response.id, stream=True, starting_after=3)
    assert [event.sequence_number for event in rest] == list(range(4, last.sequence_number + 1))
    later = client.responses.create(**request, input="Hello", background=True)
    with client.responses.stream(response_id=later.id) as read:
        assert [event.type for event in read][-1].startswith("response.")
    client.responses.delete(again.id)


if __name__ == "__main__":
    play()
