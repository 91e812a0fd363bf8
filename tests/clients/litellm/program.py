"""litellm: its SDK, and the router with the fallbacks that it starts by the texts of errors."""

import json
import os
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise the import downloads a list of prices

import litellm
from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from pydantic import BaseModel, Field

QUESTION: Any = {"role": "user", "content": "What is the capital of France?"}
HERE: Any = {"model": f"openai/{SERVICE.model}", "api_base": BASE_URL, "api_key": KEY, "max_retries": 0}
BRIEF: Any = {**HERE, "messages": [QUESTION], "max_tokens": 24, "temperature": 0}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@scene
def chat() -> None:
    answer = litellm.completion(**BRIEF)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


@scene
def stream() -> None:
    chunks = list(litellm.completion(**BRIEF, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == litellm.completion(**BRIEF).choices[0].message.content
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content == text


@scene
def tools() -> None:
    """The message is appended as it is, with litellm's own members, by both providers of servers like this one."""
    for provider in ("openai", "hosted_vllm"):
        request: Any = {**BRIEF, "model": f"{provider}/{SERVICE.model}", "max_tokens": 100, "tools": [WEATHER]}
        message = litellm.completion(**request, tool_choice="required", parallel_tool_calls=False).choices[0].message
        (call,) = message.tool_calls
        assert set(json.loads(call.function.arguments)) == {"city", "unit"}
        request["messages"] = [QUESTION, message, {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}]
        assert litellm.completion(**request, tool_choice="none").choices[0].message.content


@scene
def structured_output() -> None:
    litellm.enable_json_schema_validation = True
    answer = litellm.completion(**{**BRIEF, "max_tokens": 100}, response_format=City)
    assert City.model_validate_json(answer.choices[0].message.content)


@scene
def embeddings() -> None:
    answer = litellm.embedding(
        model=f"openai/{SERVICE.embedding_model}", input=["a cat", "a dog"], api_base=EMBEDDING_BASE_URL, api_key=KEY
    )
    assert [len(item["embedding"]) for item in answer.data] == [SERVICE.embedding_dimensions] * 2


@scene
def an_answer_is_continued() -> None:
    """The last message is the beginning of the answer, as litellm documents it for DeepSeek and Mistral."""
    begun = {"role": "assistant", "content": "The capital of France is Par", "prefix": True}
    answer = litellm.completion(**{**BRIEF, "messages": [QUESTION, begun]}).choices[0].message.content
    assert answer.startswith("is"), answer


@scene
def errors() -> None:
    long = [{"role": "user", "content": "word " * 20000}]
    try:
        litellm.completion(**{**BRIEF, "messages": long})
        raise AssertionError("it was accepted")
    except litellm.ContextWindowExceededError:
        pass
    try:
        litellm.completion(**{**BRIEF, "model": "openai/no-such-model"})
        raise AssertionError("it was accepted")
    except litellm.NotFoundError:
        pass


@scene
def context_window_fallback() -> None:
    """The router sends a prompt that is too long for one model to the next one, which here is a canned answer."""
    router = litellm.Router(
        model_list=[
            {"model_name": "small", "litellm_params": HERE},
            {"model_name": "large", "litellm_params": {**HERE, "mock_response": "from the large one"}},
        ],
        context_window_fallbacks=[{"small": ["large"]}],
        num_retries=0,
    )
    answer = router.completion(model="small", messages=[{"role": "user", "content": "word " * 20000}])
    assert answer.choices[0].message.content == "from the large one"


@scene
def responses() -> None:
    """Its own function, and its bridge, which sends a chat as a response."""
    tool = {"type": "function", **WEATHER["function"]}
    request: Any = {**HERE, "max_output_tokens": 100, "temperature": 0, "tools": [tool]}
    question = {"role": "user", "content": "What is the weather in Paris?"}
    called = litellm.responses(**request, input=[question], tool_choice="required", parallel_tool_calls=False)
    (call,) = called.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
    whole = litellm.responses(**request, input=[question, *called.output, result], tool_choice="none")
    short = litellm.responses(**request, input=[result], previous_response_id=called.id, tool_choice="none")
    assert whole.output_text and short.output_text
    assert whole.usage.input_tokens == short.usage.input_tokens
    bridge: Any = {**BRIEF, "model": f"openai/responses/{SERVICE.model}"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**bridge, stream=True))
    assert text == litellm.completion(**bridge).choices[0].message.content


if __name__ == "__main__":
    play()
