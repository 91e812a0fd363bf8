"""openai-agents: agents over chat completions and over responses."""

import asyncio
from typing import Any, Literal

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from client_program import BASE_URL, KEY, SERVICE, not_offered, play, scene
from pydantic import BaseModel, Field

set_tracing_disabled(True)  # traces are sent to OpenAI

QUESTION = "What is the capital of France?"
CLASSES = (OpenAIChatCompletionsModel, OpenAIResponsesModel)
# The classes over responses take an answer that ends at max_tokens for a failure.
BRIEF = ModelSettings(max_tokens=200, temperature=0)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@function_tool
def get_weather(city: str, unit: Literal["C", "F"]) -> str:
    """Return the weather in a city."""
    asked.append(city)
    return f"22 {unit} in {city}"


asked: list[str] = []


def agent(model: Any, settings: ModelSettings = BRIEF, **more: Any) -> Any:
    client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
    return Agent(
        name="Assistant",
        instructions="Be brief.",
        model=model(model=SERVICE.model, openai_client=client),
        model_settings=settings,
        **more,
    )


@scene
def chat() -> None:
    for model in CLASSES:
        result = Runner.run_sync(agent(model), QUESTION)
        assert result.final_output
        again = [*result.to_input_list(), {"role": "user", "content": "And of Spain?"}]
        assert Runner.run_sync(agent(model), again).final_output


@scene
def stream() -> None:
    async def texts(model: Any) -> tuple[str, str]:
        run = Runner.run_streamed(agent(model), QUESTION)
        deltas = [
            event.data.delta
            async for event in run.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return "".join(deltas), run.final_output

    for model in CLASSES:
        streamed, final = asyncio.run(texts(model))
        assert streamed == final == Runner.run_sync(agent(model), QUESTION).final_output


@scene
def tools() -> None:
    """The runner forces the tool in the first turn, sends its result back, and leaves the choice free in the second."""
    for model in CLASSES:
        asked.clear()
        settings = ModelSettings(max_tokens=100, temperature=0, tool_choice="required", parallel_tool_calls=False)
        result = Runner.run_sync(agent(model, settings, tools=[get_weather]), QUESTION)
        assert asked and result.final_output


@scene
def structured_output() -> None:
    for model in CLASSES:
        settings = ModelSettings(max_tokens=100, temperature=0)
        result = Runner.run_sync(agent(model, settings, output_type=City), "Describe Paris.")
        assert isinstance(result.final_output, City)


@scene
def handoffs_and_sessions() -> None:
    """A model by its name alone is asked over responses. Handoffs are calls, and a session sends all items again."""
    set_default_openai_client(openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0), use_for_tracing=False)
    must_call = ModelSettings(max_tokens=100, temperature=0, tool_choice="required", parallel_tool_calls=False)
    # a city has an end; whether this small model ends its text here depends on rounding
    expert = Agent(name="Expert", model=SERVICE.model, model_settings=BRIEF, output_type=City)
    desk: Any = Agent(name="Desk", model=SERVICE.model, model_settings=must_call, handoffs=[expert])
    session = SQLiteSession("clients")
    first = Runner.run_sync(desk, QUESTION, session=session)
    assert first.last_agent is expert and first.final_output
    assert Runner.run_sync(expert, "And of Spain?", session=session).final_output
    continued = Runner.run_sync(expert, "And of Spain?", previous_response_id=first.last_response_id)
    assert continued.final_output


not_offered("embeddings", "openai-agents has no embeddings")

if __name__ == "__main__":
    play()
