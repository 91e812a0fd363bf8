"""The real `langchain-openai` against the running service."""

from typing import Any, Literal

import pytest
from langchain_core.exceptions import ContextOverflowError, ModelNotFoundError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field, SecretStr

from tests.end_to_end.test_openai_client import MODEL
from tests.stack import Stack

NO_KEY = SecretStr("none")
QUESTION = "What is the capital of France?"


@pytest.fixture
def chat(smollm2: Stack) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{smollm2.url}/v1",
        api_key=NO_KEY,
        model=MODEL,
        temperature=0,
        max_completion_tokens=60,
        max_retries=0,
    )


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


@tool
def get_weather(city: str, unit: Literal["C", "F"]) -> str:
    """The weather in a city."""
    return f"22 {unit} in {city}"


def test_invoke_answers_with_a_message_and_its_usage(chat: ChatOpenAI) -> None:
    answer = chat.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage) and answer.content
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["model_name"] == MODEL


def test_stream_brings_the_same_text_in_pieces(chat: ChatOpenAI) -> None:
    pieces = list(chat.stream(QUESTION))
    assert len(pieces) > 5
    assert "".join(str(piece.content) for piece in pieces) == chat.invoke(QUESTION).content


def test_batch_answers_each(chat: ChatOpenAI) -> None:
    answers = chat.batch([f"What is {number} and one?" for number in range(8)])
    assert len(answers) == 8 and all(answer.content for answer in answers)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_with_structured_output_gives_the_model(chat: ChatOpenAI, method: Any) -> None:
    city = chat.with_structured_output(City, method=method).invoke("Describe Paris.")
    assert isinstance(city, City) and city.name


def test_bound_tools_are_called_and_their_results_answered(chat: ChatOpenAI) -> None:
    question = HumanMessage("What is the weather in Paris?")
    called = chat.bind_tools([get_weather], tool_choice="any").invoke([question])
    assert isinstance(called, AIMessage)
    call = called.tool_calls[0]
    assert call["name"] == "get_weather" and set(call["args"]) == {"city", "unit"}
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert chat.bind_tools([get_weather], tool_choice="none").invoke([question, called, result]).content


def test_tools_may_be_left_alone(chat: ChatOpenAI) -> None:
    answer = chat.bind_tools([get_weather]).invoke("Say hello.")
    assert answer.content or answer.tool_calls
    pieces = list(chat.bind_tools([get_weather]).stream("Say hello."))
    assert pieces


def test_the_completion_class_continues_prompts(smollm2: Stack) -> None:
    llm = OpenAI(base_url=f"{smollm2.url}/v1", api_key=NO_KEY, model=MODEL, temperature=0, max_tokens=8, max_retries=0)
    assert "".join(llm.stream("The capital of France is")) == llm.invoke("The capital of France is")
    assert len(llm.batch(["1, 2, 3,", "a, b, c,"])) == 2


def test_texts_are_embedded(smollm2: Stack) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{smollm2.url}/v1", api_key=NO_KEY, model=MODEL, check_embedding_ctx_length=False, max_retries=0
    )
    documents = embeddings.embed_documents(["a cat", "a dog"])
    assert len(documents) == 2 and len(documents[0]) == len(embeddings.embed_query("a cat")) == 576


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_beyond_the_context_is_the_overflow_that_fallbacks_wait_for(chat: ChatOpenAI, stream: bool) -> None:
    with pytest.raises(ContextOverflowError, match="maximum context length is"):
        list(chat.stream("word " * 3000)) if stream else chat.invoke("word " * 3000)


def test_an_unknown_model_is_the_error_that_langchain_has_for_it(chat: ChatOpenAI) -> None:
    with pytest.raises(ModelNotFoundError, match="'gpt-4' does not exist"):
        chat.model_copy(update={"model_name": "gpt-4"}).invoke(QUESTION)
