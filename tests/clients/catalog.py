"""The clients of this folder."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

FOLDER = Path(__file__).parent
SCENES = ("chat", "stream", "tools", "structured_output", "embeddings")
"""Each client is asked for these; a program states which of them its client does not offer."""


class Language(Enum):
    PYTHON = "program.py"
    JAVASCRIPT = "program.mjs"


@dataclass(frozen=True)
class Client:
    """A client: the name of its folder, and whether it is light.

    A light client is installed in seconds and runs in seconds: it is part of `make test`.
    """

    name: str
    light: bool = False

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def language(self) -> Language:
        (language,) = (language for language in Language if (self.folder / language.value).exists())
        return language


CLIENTS = (
    Client("openai_python", light=True),
    Client("openai_npm"),
    Client("litellm"),
    Client("langchain_openai", light=True),
    Client("langchain_npm"),
    Client("llama_index"),
    Client("instructor"),
    Client("pydantic_ai", light=True),
    Client("openai_agents", light=True),
    Client("openai_agents_npm"),
    Client("ai_sdk"),
    Client("haystack"),
    Client("semantic_kernel"),
    Client("outlines", light=True),
    Client("aider"),
    Client("codex"),
    Client("llm"),
)
