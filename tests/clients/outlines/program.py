"""outlines: its models for OpenAI's API, and those for vLLM and SGLang, which send grammars and regular expressions."""

import re
from typing import Any, Literal

import openai
import outlines
from client_program import BASE_URL, KEY, SERVICE, not_offered, play, scene
from outlines.inputs import Chat
from outlines.types import CFG, Regex
from pydantic import BaseModel, Field

QUESTION = "What is the capital of France?"
BRIEF: Any = {"max_tokens": 24, "temperature": 0}
LONGER: Any = {"max_tokens": 100, "temperature": 0}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


def models() -> list[Any]:
    client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
    makers = (outlines.from_openai, outlines.from_vllm, outlines.from_sglang)
    return [make(client, SERVICE.model) for make in makers]


@scene
def chat() -> None:
    for model in models():
        assert model(QUESTION, **BRIEF)
        conversation = Chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}])
        assert model(conversation, **BRIEF)


@scene
def stream() -> None:
    for model in models():
        assert "".join(model.stream(QUESTION, **BRIEF)) == model(QUESTION, **BRIEF)


@scene
def structured_output() -> None:
    for model in models():
        assert City.model_validate_json(model("Describe Paris.", City, **LONGER)), model


@scene
def regular_expressions_choices_and_grammars() -> None:
    """What the servers that outlines knows follow, beside a schema."""
    _, vllm, sglang = models()
    for model in (vllm, sglang):
        assert re.fullmatch(r"[A-Z][a-z]{3,8}!", model(QUESTION, Regex(r"[A-Z][a-z]{3,8}!"), **LONGER))
        assert model("Is Paris large?", Literal["yes", "no"], **LONGER) in ("yes", "no")
        assert int(model("What is 3 + 4?", int, **LONGER)) is not None
    grammar = 'root ::= "Paris" | "London"'  # GBNF, as vLLM reads it too; outlines sends the text as it is
    assert vllm(QUESTION, CFG(grammar), **LONGER) in ("Paris", "London")


not_offered("tools", "outlines makes text and objects")
not_offered("embeddings", "outlines makes text and objects")

if __name__ == "__main__":
    play()
