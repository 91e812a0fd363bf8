"""The responses of the real `openai` package against the running service: at once, streamed, in the background."""

import asyncio
import json
import time
from typing import Any

import openai
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall, ResponseInputParam

from tests.end_to_end.test_openai_client import MODEL, PERSON, Person, asynchronous
from tests.stack import Stack
from tests.waiting import scaled

CAPITAL = "What is the capital of France?"
BRIEF: Any = {"model": MODEL, "input": CAPITAL, "max_output_tokens": 16, "temperature": 0}
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def ended(client: openai.OpenAI, response: Response) -> Response:
    """Wait for a response in the background as the package's documentation does."""
    deadline = time.monotonic() + scaled(30)
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def test_a_response_has_the_text_of_a_chat(client: openai.OpenAI) -> None:
    response = client.responses.create(**BRIEF)
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": CAPITAL}], max_tokens=16, temperature=0
    )
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.model) == ("incomplete", MODEL)
    assert response.usage is not None and chat.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (chat.usage.prompt_tokens, 16)


def test_a_conversation_continues_after_a_response(client: openai.OpenAI) -> None:
    first = client.responses.create(**BRIEF, instructions="You are a pirate.")
    second = client.responses.create(**{**BRIEF, "input": "And of Spain?"}, previous_response_id=first.id)
    items: ResponseInputParam = [
        {"role": "user", "content": CAPITAL},
        *(item.to_dict() for item in first.output),  # type: ignore[misc]
        {"role": "user", "content": "And of Spain?"},
    ]
    assert second.output_text == client.responses.create(**{**BRIEF, "input": items}).output_text


def test_the_stream_helper_gathers_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(**BRIEF) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == client.responses.create(**BRIEF).output_text and len(deltas) > 10


def test_a_structured_response_is_parsed(client: openai.OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input=PERSON, text_format=Person, temperature=0)
    assert isinstance(response.output_parsed, Person)


def test_a_function_is_called_and_its_output_is_sent_back(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "tools": [WEATHER], "max_output_tokens": 60, "parallel_tool_calls": False}
    first = client.responses.create(**request, tool_choice="required")
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall) and set(json.loads(call.arguments)) == {"city"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "22 C"}
    second = client.responses.create(
        **{**request, "input": [output]}, previous_response_id=first.id, tool_choice="none"
    )
    assert second.output_text


def test_a_response_in_the_background_is_read_later(client: openai.OpenAI) -> None:
    response = client.responses.create(**BRIEF, background=True)
    assert response.status in ("queued", "in_progress") and not response.output
    assert ended(client, response).output_text == client.responses.create(**BRIEF).output_text
    client.responses.delete(response.id)
    try:
        client.responses.retrieve(response.id)
        raise AssertionError("it is still there")
    except openai.NotFoundError as error:
        assert error.code == "response_not_found"


def test_a_stream_that_broke_off_continues_after_its_last_event(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "max_output_tokens": 40, "extra_body": {"ignore_eos": True}}
    stream = client.responses.create(**request, background=True, stream=True)
    begun = [event for event, _ in zip(stream, range(12), strict=False)]
    stream.close()
    assert begun[0].type == "response.created"
    rest = client.responses.retrieve(begun[0].response.id, stream=True, starting_after=begun[-1].sequence_number)
    events = [*begun, *rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.output_text == text
    assert client.responses.retrieve(begun[0].response.id).output_text == text


def test_a_response_in_the_background_is_canceled(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "max_output_tokens": 400, "extra_body": {"ignore_eos": True}}
    response = client.responses.create(**request, background=True)
    assert ended(client, client.responses.cancel(response.id)).status == "cancelled"


def test_the_asynchronous_client_streams_responses_at_once(smollm2: Stack) -> None:
    async def stream(client: openai.AsyncOpenAI) -> str:
        events = await client.responses.create(**BRIEF, stream=True)
        return "".join([event.delta async for event in events if event.type == "response.output_text.delta"])

    async def run() -> list[str]:
        async with asynchronous(smollm2) as client:
            return await asyncio.gather(*(stream(client) for _ in range(4)))

    texts = asyncio.run(run())
    assert len(set(texts)) == 1 and texts[0]
