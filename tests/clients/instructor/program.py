"""instructor over the package `openai`, in each of its modes for servers of OpenAI's API."""

from typing import Any, Literal

import instructor
import openai
from client_program import BASE_URL, KEY, SERVICE, not_offered, play, scene
from pydantic import BaseModel, Field, field_validator

QUESTION: Any = {"role": "user", "content": "Describe the city of Paris."}
client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
BRIEF: Any = {"model": SERVICE.model, "messages": [QUESTION], "max_tokens": 100, "temperature": 0}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


class Corrected(BaseModel):
    """A city that fails its first validation, so that instructor asks again with the error as the tool's result."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]

    @field_validator("name")
    @classmethod
    def fails_once(cls, name: str) -> str:
        if attempts.append(name) or len(attempts) == 1:
            raise ValueError("write the name once more")
        return name


attempts: list[str] = []


@scene
def chat() -> None:
    answer = instructor.from_openai(client).chat.completions.create(**BRIEF, response_model=None)
    assert answer.choices[0].message.content


@scene
def stream() -> None:
    """A partial model grows until it is the whole one."""
    pieces = list(instructor.from_openai(client).chat.completions.create_partial(**BRIEF, response_model=City))
    assert len(pieces) > 1
    assert City.model_validate(pieces[-1].model_dump())


@scene
def tools() -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        attempts.clear()
        create = instructor.from_openai(client, mode=mode).chat.completions.create
        assert isinstance(create(**BRIEF, response_model=Corrected, max_retries=2), Corrected)
        assert len(attempts) == 2


@scene
def structured_output() -> None:
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        create = instructor.from_openai(client, mode=mode).chat.completions.create
        assert isinstance(create(**BRIEF, response_model=City), City), mode


class Cities(BaseModel):
    """Some cities."""

    cities: list[City] = Field(min_length=2, max_length=3)


@scene
def several() -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        create = instructor.from_openai(client, mode=mode).chat.completions.create_partial
        *_, last = create(**{**BRIEF, "max_tokens": 200}, response_model=Cities)
        assert len(Cities.model_validate(last.model_dump()).cities) > 1


@scene
def responses() -> None:
    create = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS).responses.create
    assert isinstance(create(input="Describe Paris.", model=SERVICE.model, response_model=City), City)


not_offered("embeddings", "instructor only makes objects")

if __name__ == "__main__":
    play()
