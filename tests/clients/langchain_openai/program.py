"""`langchain-openai`: chat models with tools and structured output, the completion class, embeddings."""

import datetime
import functools
import ipaddress
import operator
import pathlib
import uuid
from typing import Any, Literal

import openai
from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from langchain_core.exceptions import ContextOverflowError, OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import Base64Bytes, BaseModel, Field, SecretStr, ValidationError

QUESTION = "What is the capital of France?"
HERE: Any = {"base_url": BASE_URL, "api_key": SecretStr(KEY), "model": SERVICE.model, "max_retries": 0}
brief = ChatOpenAI(**HERE, temperature=0, max_completion_tokens=24)
longer = ChatOpenAI(**HERE, temperature=0, max_completion_tokens=200)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


class Record(BaseModel):
    """Types whose JSON Schema has a format that no grammar knows."""

    file: pathlib.Path
    token: SecretStr
    network: ipaddress.IPv4Network
    data: Base64Bytes = Field(max_length=12)
    key: uuid.UUID
    day: datetime.date


RECORD = (
    "Write this record: file /a.txt, token abc, network 10.0.0.0/8, data YWJj, "
    "key 123e4567-e89b-42d3-a456-426614174000, day 2026-11-28."
)
VALIDATION_ERRORS = (ValidationError, OutputParserException)


@tool
def get_weather(city: str, unit: Literal["C", "F"]) -> str:
    """The weather in a city."""
    return f"22 {unit} in {city}"


@scene
def chat() -> None:
    answer = brief.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage) and answer.content
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["model_name"] == SERVICE.model
    answers = brief.batch([f"What is {number} and one?" for number in range(8)])
    assert len(answers) == 8 and all(answer.content for answer in answers)


@scene
def stream() -> None:
    pieces = list(brief.stream(QUESTION))
    assert len(pieces) > 5
    assert "".join(str(piece.content) for piece in pieces) == brief.invoke(QUESTION).content


@scene
def tools() -> None:
    question = HumanMessage("What is the weather in Paris?")
    called = longer.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke([question])
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls
    assert call["name"] == "get_weather" and set(call["args"]) == {"city", "unit"}
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = brief.bind_tools([get_weather], tool_choice="none").invoke([question, called, result])
    assert answer.content
    assert brief.invoke([question, called, result, answer, question]).content


@scene
def tools_may_be_left_alone() -> None:
    answer = brief.bind_tools([get_weather]).invoke("Say hello.")
    assert answer.content or answer.tool_calls
    assert list(brief.bind_tools([get_weather]).stream("Say hello."))


@scene
def structured_output() -> None:
    for method in ("json_schema", "function_calling"):
        city = longer.with_structured_output(City, method=method).invoke("Describe Paris.")
        assert isinstance(city, City) and city.name


@scene
def structured_output_of_many_types() -> None:
    for method in ("json_schema", "function_calling"):
        for strict in (None, False, True):
            llm = longer.with_structured_output(Record, method=method, strict=strict, include_raw=True)
            answer = llm.invoke(RECORD)
            # Whether a text of an unknown format can be read is up to the model.
            assert isinstance(answer["parsed"], Record) or isinstance(answer["parsing_error"], VALIDATION_ERRORS)


@scene
def embeddings() -> None:
    # Without check_embedding_ctx_length=False the class cuts texts with tiktoken, which downloads its vocabulary.
    embeddings = OpenAIEmbeddings(
        base_url=EMBEDDING_BASE_URL,
        api_key=SecretStr(KEY),
        model=SERVICE.embedding_model,
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    documents = embeddings.embed_documents(["a cat", "a dog"])
    assert [len(vector) for vector in documents] == [SERVICE.embedding_dimensions] * 2
    assert len(embeddings.embed_query("a cat")) == SERVICE.embedding_dimensions


@scene
def completions() -> None:
    llm = OpenAI(**HERE, temperature=0, max_tokens=8)
    assert "".join(llm.stream("The capital of France is")) == llm.invoke("The capital of France is")
    assert len(llm.batch(["1, 2, 3,", "a, b, c,"])) == 2


@scene
def responses() -> None:
    llm = ChatOpenAI(**HERE, temperature=0, max_completion_tokens=100, use_responses_api=True)
    question = HumanMessage("What is the weather in Paris?")
    called = llm.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke([question])
    (call,) = called.tool_calls
    assert set(call["args"]) == {"city", "unit"}
    assert llm.invoke([question, called, get_weather.invoke(call)]).text
    assert "".join(piece.text for piece in llm.stream(QUESTION)) == llm.invoke(QUESTION).text


@scene
def errors() -> None:
    try:
        brief.invoke("word " * 20000)
        raise AssertionError("it was accepted")
    except ContextOverflowError:
        pass
    try:
        ChatOpenAI(**{**HERE, "model": "no-such-model"}).invoke(QUESTION)
        raise AssertionError("it was accepted")
    except openai.NotFoundError:
        pass


@scene
def responses_in_every_form_of_messages() -> None:
    """A streamed call is sent back as its own kind of blocks, and structured output works by both of its methods."""
    forms: tuple[Any, ...] = ("v0", "responses/v1", "v1")
    for form in forms:
        llm = ChatOpenAI(**HERE, temperature=0, max_completion_tokens=100, output_version=form, use_responses_api=True)
        forcing = llm.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
        first, *pieces = forcing.stream(QUESTION)
        called = functools.reduce(operator.add, pieces, first)
        (call,) = called.tool_calls
        assert llm.invoke([HumanMessage(QUESTION), called, get_weather.invoke(call)]).text
        for method in ("json_schema", "function_calling"):
            assert isinstance(llm.with_structured_output(City, method=method).invoke("Describe Paris."), City)


if __name__ == "__main__":
    play()
