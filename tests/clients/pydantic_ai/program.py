"""pydantic-ai: agents over chat completions and responses, direct requests, and its embedder."""

import asyncio
from typing import Any, Literal

from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from pydantic import BaseModel, Field
from pydantic_ai import (
    Agent,
    Embedder,
    ModelRequest,
    NativeOutput,
    ToolOutput,
    ToolReturnPart,
    UsageLimitExceeded,
    UsageLimits,
)
from pydantic_ai.direct import model_request_sync
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

provider = OpenAIProvider(base_url=BASE_URL, api_key=KEY)
models = [OpenAIChatModel(SERVICE.model, provider=provider), OpenAIResponsesModel(SERVICE.model, provider=provider)]
QUESTION = "What is the capital of France?"
BRIEF = ModelSettings(max_tokens=24, temperature=0)
LONGER = ModelSettings(max_tokens=100, temperature=0)
WEATHER = ToolDefinition(
    name="get_weather",
    parameters_json_schema={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@scene
def chat() -> None:
    for model in models:
        result = Agent(model, instructions="Be brief.", model_settings=BRIEF).run_sync(QUESTION)
        assert result.output and result.usage.output_tokens > 0
        again = Agent(model, model_settings=BRIEF).run_sync("And of Spain?", message_history=result.all_messages())
        assert again.output


@scene
def stream() -> None:
    async def texts(model: Any) -> str:
        async with Agent(model, model_settings=BRIEF).run_stream(QUESTION) as result:
            return "".join([delta async for delta in result.stream_text(delta=True, debounce_by=None)])

    for model in models:
        assert asyncio.run(texts(model)) == Agent(model, model_settings=BRIEF).run_sync(QUESTION).output


@scene
def tools() -> None:
    """By direct requests: an agent cannot be made to force a tool in its first step alone."""
    for model in models:
        question = ModelRequest(parts=[UserPromptPart(QUESTION)])
        called = model_request_sync(
            model,
            [question],
            model_settings={**LONGER, "tool_choice": "required", "parallel_tool_calls": False},
            model_request_parameters=ModelRequestParameters(function_tools=[WEATHER]),
        )
        (call,) = called.tool_calls
        assert call.tool_name == "get_weather" and set(call.args_as_dict()) == {"city", "unit"}
        result = ModelRequest(parts=[ToolReturnPart("get_weather", "22 degrees", call.tool_call_id)])
        answered = model_request_sync(
            model,
            [question, called, result],
            model_settings={**LONGER, "tool_choice": "none"},
            model_request_parameters=ModelRequestParameters(function_tools=[WEATHER], allow_text_output=True),
        )
        assert answered.text


@scene
def structured_output() -> None:
    for model in models:
        for output in (NativeOutput(City), ToolOutput(City), NativeOutput(City, strict=True)):
            result = Agent(model, output_type=output, model_settings=LONGER).run_sync("Describe Paris.")
            assert isinstance(result.output, City), output


@scene
def agent_with_tools() -> None:
    """An agent offers its tools in every step, and the model answers or calls as it likes."""
    agent = Agent(models[0], model_settings=BRIEF)

    @agent.tool_plain
    def get_weather(city: str, unit: Literal["C", "F"] = "C") -> str:
        """Return the weather in a city."""
        return f"22 {unit} in {city}"

    assert isinstance(agent.run_sync("Say hello.").output, str)


@scene
def tokens_are_counted_before_a_request() -> None:
    """Its limits of input tokens ask the server to count first, over responses."""
    agent = Agent(models[1], instructions="Be brief.", model_settings=BRIEF)
    used = agent.run_sync(QUESTION).usage.input_tokens
    limits = UsageLimits(input_tokens_limit=used, count_tokens_before_request=True)
    assert agent.run_sync(QUESTION, usage_limits=limits).output
    try:
        agent.run_sync(
            QUESTION, usage_limits=UsageLimits(input_tokens_limit=used - 1, count_tokens_before_request=True)
        )
        raise AssertionError("it was sent")
    except UsageLimitExceeded as error:
        assert str(used) in str(error), error


@scene
def embeddings() -> None:
    model = OpenAIEmbeddingModel(
        SERVICE.embedding_model, provider=OpenAIProvider(base_url=EMBEDDING_BASE_URL, api_key=KEY)
    )
    vectors = Embedder(model).embed_documents_sync(["a cat", "a dog"]).embeddings
    assert [len(vector) for vector in vectors] == [SERVICE.embedding_dimensions] * 2


if __name__ == "__main__":
    play()
