"""The real `openai` package against the running service: a user changes nothing but `base_url`."""

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field

from tests.stack import SMOLLM2_FILE, Stack

MODEL = SMOLLM2_FILE.stem
CAPITAL: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
BRIEF: Any = {"model": MODEL, "messages": CAPITAL, "max_tokens": 16, "temperature": 0}


def asynchronous(stack: Stack) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)


def test_the_model_is_listed_and_read(client: openai.OpenAI) -> None:
    (listed,) = client.models.list()
    assert client.models.retrieve(MODEL) == listed
    assert (listed.id, listed.owned_by) == (MODEL, "llm-api")


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**BRIEF, logprobs=True, top_logprobs=3, seed=1)
    (choice,) = answer.choices
    assert choice.message.content
    assert (choice.finish_reason, answer.model) == ("length", MODEL)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (16, answer.usage.prompt_tokens + 16)
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 16
    text = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert text.decode() == choice.message.content
    assert all(token.top_logprobs[0].logprob == token.logprob for token in choice.logprobs.content), "greedy"


def test_a_stream_brings_the_same_text_and_its_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**BRIEF).choices[0].message.content
    chunks = list(client.chat.completions.create(**BRIEF, stream=True, stream_options={"include_usage": True}))
    *texts, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == whole
    assert len(texts) > 10
    assert last.usage is not None and last.usage.completion_tokens == 16


def test_the_stream_helper_gathers_the_message(client: openai.OpenAI) -> None:
    request: Any = {
        **BRIEF,
        "extra_body": {"grammar": 'root ::= "Paris, " [a-z]{3,6} "."'},
    }  # the helper needs a proper end of the stream
    with client.chat.completions.stream(**request) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == client.chat.completions.create(**request).choices[0].message.content


def test_several_choices_differ_and_are_the_same_again_under_a_seed(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "temperature": 1.5, "n": 3, "seed": 7}
    answers = [client.chat.completions.create(**request) for _ in range(2)]
    first, again = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert len(set(first)) == 3 and first == again
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**request, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == first


def test_additional_parameters_go_into_extra_body(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**BRIEF, extra_body={"grammar": 'root ::= "Paris!"', "top_k": 1})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Paris!", "stop")


def test_a_prompt_that_came_before_is_cached(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "messages": [{"role": "user", "content": "Count the letters of this one sentence."}]}
    client.chat.completions.create(**request)
    usage = client.chat.completions.create(**request).usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens


class Address(BaseModel):
    street: str = Field(max_length=20)
    number: int = Field(ge=1, le=99)


class Person(BaseModel):
    name: str = Field(max_length=20)
    kind: Literal["friend", "stranger"]
    address: Address
    tags: list[Literal["old", "young", "tall"]] = Field(max_length=2)


PERSON = "Describe a person as JSON."


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": PERSON}], response_format=Person, temperature=0
    )
    person = answer.choices[0].message.parsed
    assert isinstance(person, Person) and person.address.number


@pytest.mark.timeout(300)
def test_100_structured_answers_with_nested_schemas_are_100_valid_documents(client: openai.OpenAI) -> None:
    def ask(number: int) -> Person | None:
        answer = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": f"{PERSON} It is number {number}."}],
            response_format=Person,
            temperature=1.0,
            seed=number,
        )
        return answer.choices[0].message.parsed

    with ThreadPoolExecutor(32) as pool:
        people = list(pool.map(ask, range(100)))
    assert all(isinstance(person, Person) for person in people)


def test_json_mode_gives_an_object(client: openai.OpenAI) -> None:
    request: Any = {**BRIEF, "max_tokens": 300, "response_format": {"type": "json_object"}}
    request["messages"] = [{"role": "user", "content": 'Say {"city": "Paris"} as JSON.'}]
    choice = client.chat.completions.create(**request).choices[0]
    assert choice.message.content and choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_must_be_is_valid_by_grammar(client: openai.OpenAI, choice: Any) -> None:
    request: Any = {**BRIEF, "tools": [WEATHER], "tool_choice": choice, "max_tokens": 100, "parallel_tool_calls": False}
    whole = client.chat.completions.create(**request).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.tool_calls
    (call,) = whole.message.tool_calls
    assert call.type == "function" and call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    with client.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed and streamed[0].function.arguments == call.function.arguments
    request["messages"] = [*CAPITAL, whole.message, {"role": "tool", "tool_call_id": call.id, "content": "22 C"}]
    assert client.chat.completions.create(**{**request, "tool_choice": "none"}).choices[0].message.content


@pytest.mark.parametrize("max_tokens", [5, 40, 300])
def test_required_calls_that_are_cut_off_are_whole_or_not_there(client: openai.OpenAI, max_tokens: int) -> None:
    request: Any = {**BRIEF, "tools": [WEATHER], "tool_choice": "required", "max_tokens": max_tokens}
    request["messages"] = [{"role": "user", "content": "What is the weather in each of ten cities?"}]
    whole = client.chat.completions.create(**request).choices[0]
    calls = whole.message.tool_calls or []
    assert not whole.message.content and bool(calls) is (max_tokens > 5)
    assert whole.finish_reason == ("tool_calls" if max_tokens == 300 else "length")
    assert all(
        set(json.loads(call.function.arguments)) == {"city", "unit"} for call in calls if call.type == "function"
    )
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**request, stream=True) if chunk.choices]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == ""
    assert sum(bool(call.id) for chunk in chunks for call in chunk.delta.tool_calls or ()) == len(calls)
    assert chunks[-1].finish_reason == whole.finish_reason


def test_completions_take_texts_and_tokens_and_echo_them(client: openai.OpenAI, http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"text": "The sun is"}).json()["tokens"]
    answer = client.completions.create(
        model=MODEL, prompt=["The sun is", "The moon is"], max_tokens=4, temperature=0, echo=True, logprobs=1, n=2
    )
    assert [choice.text.startswith("The sun is") for choice in answer.choices] == [True, True, False, False]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == answer.choices[0].text
    offsets = [sum(map(len, logprobs.tokens[:index])) for index in range(len(logprobs.tokens))]
    assert logprobs.text_offset == offsets
    by_tokens = client.completions.create(model=MODEL, prompt=tokens, max_tokens=4, temperature=0, echo=True)
    assert by_tokens.choices[0].text == answer.choices[0].text


def test_a_prompt_is_scored_without_generating_anything(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="The sun is hot", max_tokens=0, echo=True, logprobs=0)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("The sun is hot", "length")
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None and len(choice.logprobs.token_logprobs) == 4
    assert answer.usage is not None and answer.usage.completion_tokens == 0


def test_completions_stream_and_stop(client: openai.OpenAI) -> None:
    request: Any = {"model": MODEL, "prompt": "1, 2, 3, 4,", "max_tokens": 12, "temperature": 0, "stop": [" 7"]}
    chunks = list(client.completions.create(**request, stream=True))
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == client.completions.create(**request).choices[0].text
    assert "7" not in text and chunks[-1].choices[0].finish_reason == "stop"


def test_the_best_of_several_completions_is_returned(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="The sun", max_tokens=4, n=1, best_of=3, temperature=1.5)
    assert len(answer.choices) == 1 and answer.usage is not None
    assert 3 < answer.usage.completion_tokens <= 12


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["a cat on a mat", "stock markets fell"]
    packed = client.embeddings.create(model=MODEL, input=texts)  # the package asks for base64 by itself
    plain = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert len(packed.data) == 2 and packed.usage.prompt_tokens == plain.usage.prompt_tokens > 2
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    short = client.embeddings.create(model=MODEL, input=texts[0], dimensions=8).data[0].embedding
    assert len(short) == 8 and math.hypot(*short) == pytest.approx(1, abs=1e-4)


def test_errors_are_those_the_package_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(**{**BRIEF, "model": "gpt-4"})
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(**{**BRIEF, "messages": [{"role": "user", "content": "word " * 3000}]})
    with pytest.raises(openai.BadRequestError) as image:
        part = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
        client.chat.completions.create(**{**BRIEF, "messages": [{"role": "user", "content": [part]}]})
    with pytest.raises(openai.BadRequestError) as schema:
        named = {"name": "x", "schema": {"type": "no such type"}}
        client.chat.completions.create(**BRIEF, response_format={"type": "json_schema", "json_schema": named})
    refusals = [(error.value.code, error.value.param) for error in (not_found, too_long, image, schema)]
    assert refusals == [
        ("model_not_found", "model"),
        ("context_length_exceeded", "messages"),
        ("invalid_request", "messages.0.content.0"),
        ("invalid_grammar", "response_format"),
    ]


def test_the_asynchronous_client_chats_streams_and_embeds_at_once(smollm2: Stack) -> None:
    async def stream(client: openai.AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(**BRIEF, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def run() -> tuple[list[str | None], list[str], int]:
        async with asynchronous(smollm2) as client:
            whole = asyncio.gather(*(client.chat.completions.create(**BRIEF) for _ in range(8)))
            streamed = asyncio.gather(*(stream(client) for _ in range(8)))
            vectors = client.embeddings.create(model=MODEL, input=["a", "b"])
            answers = [answer.choices[0].message.content for answer in await whole]
            return answers, await streamed, len((await vectors).data)

    whole, streamed, vectors = asyncio.run(run())
    assert len({*whole, *streamed}) == 1 and len(streamed) == 8
    assert vectors == 2


def test_leaving_a_stream_cancels_its_jobs(client: openai.OpenAI, http: httpx.Client) -> None:
    request: Any = {**BRIEF, "max_tokens": 400, "n": 2, "extra_body": {"ignore_eos": True}}
    stream = client.chat.completions.create(**request, stream=True)
    job_id = next(iter(stream)).id.removeprefix("chatcmpl-")
    stream.close()
    assert http.get(f"/jobs/{job_id}", params={"wait": 10}).json()["status"] == "canceled"


def test_leaving_while_waiting_cancels_all_choices(client: openai.OpenAI, http: httpx.Client) -> None:
    request: Any = {**BRIEF, "max_tokens": 400, "n": 2, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**request)
    newest = http.get("/jobs", params={"limit": 2}).json()["data"]
    ended = [http.get(job["urls"]["self"], params={"wait": 10}).json() for job in newest]
    assert [job["status"] for job in ended] == ["canceled"] * 2


def test_generate_takes_messages_too(client: openai.OpenAI, http: httpx.Client) -> None:
    params = {"temperature": 0, "max_tokens": 16, "repeat_penalty": 1.0}
    text = http.post("/generate", json={"messages": CAPITAL, "params": params}).json()
    assert text == client.chat.completions.create(**BRIEF).choices[0].message.content


def test_tokens_of_a_text_and_of_a_conversation_are_returned(client: openai.OpenAI, http: httpx.Client) -> None:
    text = "Grüße, 日本! <|im_end|>"
    tokens = http.post("/tokenize", json={"text": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert http.post("/detokenize", json={"tokens": tokens["tokens"]}).json() == {"text": text}
    chat = http.post("/tokenize", json={"messages": CAPITAL}).json()
    usage = client.chat.completions.create(**BRIEF).usage
    assert usage is not None and chat["count"] == usage.prompt_tokens
