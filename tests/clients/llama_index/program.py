"""llama-index with the classes that it has for servers of OpenAI's API."""

from typing import Any, Literal

from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel, Field

QUESTION = ChatMessage(role=MessageRole.USER, content="What is the capital of France?")
HERE: Any = {
    "model": SERVICE.model,
    "api_base": BASE_URL,
    "api_key": KEY,
    "is_chat_model": True,
    "is_function_calling_model": True,
    "context_window": SERVICE.context_tokens,
    "max_retries": 0,
    "temperature": 0,
}
brief = OpenAILike(**HERE, max_tokens=24)
longer = OpenAILike(**HERE, max_tokens=100)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


def get_weather(city: str, unit: Literal["C", "F"]) -> str:
    """Return the weather in a city."""
    return f"22 {unit} in {city}"


weather = FunctionTool.from_defaults(get_weather)


@scene
def chat() -> None:
    assert brief.chat([QUESTION]).message.content
    assert brief.complete("The capital of France is").text


@scene
def stream() -> None:
    pieces = list(brief.stream_chat([QUESTION]))
    text = "".join(piece.delta or "" for piece in pieces)
    assert text == pieces[-1].message.content == brief.chat([QUESTION]).message.content


@scene
def tools() -> None:
    called = longer.chat_with_tools([weather], chat_history=[QUESTION], tool_required=True)
    (call,) = longer.get_tool_calls_from_response(called)
    assert call.tool_name == "get_weather" and set(call.tool_kwargs) == {"city", "unit"}
    result = ChatMessage(
        role=MessageRole.TOOL,
        content=str(weather(**call.tool_kwargs)),
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    answered = longer.chat_with_tools([weather], chat_history=[QUESTION, called.message, result], tool_choice="none")
    assert answered.message.content


@scene
def structured_output() -> None:
    """By a forced tool, and by a JSON schema."""
    prompt = PromptTemplate("Describe the city {name}.")
    assert isinstance(longer.structured_predict(City, prompt, name="Paris"), City)
    by_schema = OpenAILike(**HERE, max_tokens=100, should_use_structured_outputs=True)
    assert isinstance(by_schema.structured_predict(City, prompt, name="Paris"), City)


@scene
def embeddings() -> None:
    embedding = OpenAILikeEmbedding(
        model_name=SERVICE.embedding_model, api_base=EMBEDDING_BASE_URL, api_key=KEY, max_retries=0
    )
    vectors = embedding.get_text_embedding_batch(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [SERVICE.embedding_dimensions] * 2


@scene
def responses() -> None:
    here = {name: value for name, value in HERE.items() if name != "temperature"}
    llm = OpenAILikeResponses(**here, temperature=0, max_output_tokens=100)
    called = llm.chat_with_tools([weather], chat_history=[QUESTION], tool_required=True, parallel_tool_calls=False)
    (call,) = llm.get_tool_calls_from_response(called)
    result = ChatMessage(role=MessageRole.TOOL, content="22 C", additional_kwargs={"call_id": call.tool_id})
    history = [QUESTION, called.message, result]
    text = "".join(piece.delta or "" for piece in llm.stream_chat(history))
    assert text and llm.chat(history).message.content  # rounding differs with what is cached


if __name__ == "__main__":
    play()
