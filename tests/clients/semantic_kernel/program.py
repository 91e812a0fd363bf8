"""semantic-kernel: its chat and embedding services with a client of the package `openai`."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, Literal

import openai
from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from pydantic import BaseModel, Field
from semantic_kernel import Kernel
from semantic_kernel.agents import OpenAIResponsesAgent
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextEmbedding,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


class Weather:
    """A plugin."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @kernel_function
    def get_weather(self, city: Annotated[str, "the city"]) -> str:
        """Return the weather in a city."""
        self.asked.append(city)
        return f"22 C in {city}"


def service() -> OpenAIChatCompletion:
    client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
    return OpenAIChatCompletion(ai_model_id=SERVICE.model, async_client=client)


def asked() -> ChatHistory:
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message("What is the capital of France?")
    return history


def settings(**more: Any) -> OpenAIChatPromptExecutionSettings:
    return OpenAIChatPromptExecutionSettings(max_tokens=100, temperature=0, **more)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@scene
def chat() -> None:
    history = asked()
    answer = run(service().get_chat_message_content(history, settings()))
    assert str(answer) and answer.metadata["usage"].completion_tokens > 0
    history.add_message(answer)
    history.add_user_message("And of Spain?")
    assert str(run(service().get_chat_message_content(history, settings())))


@scene
def stream() -> None:
    async def text() -> str:
        stream = service().get_streaming_chat_message_content(asked(), settings())
        return "".join([str(piece) async for piece in stream])

    assert run(text()) == str(run(service().get_chat_message_content(asked(), settings())))


@scene
def tools() -> None:
    """The kernel forces one function, invokes it, and sends its result back in a second turn without a tool choice."""
    kernel, weather = Kernel(), Weather()
    kernel.add_plugin(weather, "weather")
    answer = run(
        service().get_chat_message_content(
            asked(), settings(function_choice_behavior=FunctionChoiceBehavior.Required()), kernel=kernel
        )
    )
    assert weather.asked and str(answer)


@scene
def structured_output() -> None:
    answer = run(service().get_chat_message_content(asked(), settings(response_format=City)))
    assert City.model_validate_json(str(answer))


@scene
def embeddings() -> None:
    client = openai.AsyncOpenAI(base_url=EMBEDDING_BASE_URL, api_key=KEY, max_retries=0)
    embedding = OpenAITextEmbedding(ai_model_id=SERVICE.embedding_model, async_client=client)
    vectors = run(embedding.generate_embeddings(["a cat", "a dog"]))
    assert [len(vector) for vector in vectors] == [SERVICE.embedding_dimensions] * 2


@scene
def responses() -> None:
    """Its agent over responses keeps the conversation in the service, by `previous_response_id`, or in its thread."""

    async def conversation(agent: OpenAIResponsesAgent) -> str:
        first = await agent.get_response(messages="Say hello.", max_output_tokens=300, temperature=0)
        second = [piece async for piece in agent.invoke_stream(messages="And goodbye.", thread=first.thread)]
        return "".join(str(piece.message) for piece in second)

    for is_stored in (True, False):
        client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
        agent = OpenAIResponsesAgent(
            ai_model_id=SERVICE.model, client=client, name="Assistant", store_enabled=is_stored, plugins=[Weather()]
        )
        assert run(conversation(agent))


if __name__ == "__main__":
    play()
