"""Haystack: its chat generators over chat completions and responses, and its embedders."""

import os
from typing import Annotated, Any, Literal

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret
from pydantic import BaseModel, Field

QUESTION = ChatMessage.from_user("What is the capital of France?")
HERE: Any = {"api_key": Secret.from_token(KEY), "model": SERVICE.model, "api_base_url": BASE_URL, "max_retries": 0}
BRIEF: Any = {"max_completion_tokens": 24, "temperature": 0}
LONGER: Any = {"max_completion_tokens": 100, "temperature": 0}
BRIEF_RESPONSE: Any = {"max_output_tokens": 24, "temperature": 0}
LONGER_RESPONSE: Any = {"max_output_tokens": 100, "temperature": 0}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@tool
def get_weather(city: Annotated[str, "the city"], unit: Annotated[Literal["C", "F"], "the unit"]) -> str:
    """The weather in a city."""
    return f"22 {unit} in {city}"


def generators() -> list[tuple[Any, Any, Any]]:
    return [
        (OpenAIChatGenerator(**HERE), BRIEF, LONGER),
        (OpenAIResponsesChatGenerator(**HERE), BRIEF_RESPONSE, LONGER_RESPONSE),
    ]


@scene
def chat() -> None:
    for generator, brief, _ in generators():
        (reply,) = generator.run([ChatMessage.from_system("Be brief."), QUESTION], generation_kwargs=brief)["replies"]
        assert reply.text
        again = generator.run([QUESTION, reply, ChatMessage.from_user("And of Spain?")], generation_kwargs=brief)
        assert again["replies"][0].text


@scene
def stream() -> None:
    for generator, brief, _ in generators():
        pieces: list[str] = []
        (reply,) = generator.run(
            [QUESTION],
            generation_kwargs=brief,
            streaming_callback=lambda chunk, pieces=pieces: pieces.append(chunk.content),
        )["replies"]
        assert "".join(pieces) == reply.text == generator.run([QUESTION], generation_kwargs=brief)["replies"][0].text


@scene
def tools() -> None:
    for generator, _, longer in generators():
        for strict in (False, True):
            forced = {**longer, "tool_choice": "required", "parallel_tool_calls": False}
            (called,) = generator.run([QUESTION], generation_kwargs=forced, tools=[get_weather], tools_strict=strict)[
                "replies"
            ]
            assert called.tool_call is not None and set(called.tool_call.arguments) == {"city", "unit"}
            result = ChatMessage.from_tool(get_weather.invoke(**called.tool_call.arguments), origin=called.tool_call)
            (answered,) = generator.run(
                [QUESTION, called, result], generation_kwargs={**longer, "tool_choice": "none"}, tools=[get_weather]
            )["replies"]
            assert answered.text


@scene
def structured_output() -> None:
    (chat, _, longer), (response, _, longer_response) = generators()
    (reply,) = chat.run([QUESTION], generation_kwargs={**longer, "response_format": City})["replies"]
    assert City.model_validate_json(reply.text)
    (reply,) = response.run([QUESTION], generation_kwargs={**longer_response, "text_format": City})["replies"]
    assert City.model_validate_json(reply.text)


@scene
def embeddings() -> None:
    here: Any = {**HERE, "model": SERVICE.embedding_model, "api_base_url": EMBEDDING_BASE_URL}
    assert len(OpenAITextEmbedder(**here).run("a cat")["embedding"]) == SERVICE.embedding_dimensions
    documents = OpenAIDocumentEmbedder(**here).run([Document(content="a cat"), Document(content="a dog")])["documents"]
    assert [len(document.embedding) for document in documents] == [SERVICE.embedding_dimensions] * 2


if __name__ == "__main__":
    play()
