"""llm, really as the command-line program that its users type; tools through its Python API."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from client_program import BASE_URL, EMBEDDING_BASE_URL, KEY, SERVICE, play, scene
from llm.default_plugins.openai_models import Chat

HOME = Path(tempfile.mkdtemp(prefix="llm-client-"))
os.environ["LLM_USER_PATH"] = str(HOME)

MODELS = {"chat": {}, "responses": {"responses": True}}
"""Models as the user adds them, by chat completions and by responses."""
(HOME / "extra-openai-models.yaml").write_text(
    json.dumps(
        [
            {
                "model_id": name,
                "model_name": SERVICE.model,
                "api_base": BASE_URL,
                "supports_schema": True,
                "supports_tools": True,
                **more,
            }
            for name, more in MODELS.items()
        ]
    )
)
QUESTION = "What is the capital of France?"
BRIEF = ("-o", "max_tokens", "24", "-o", "temperature", "0")
LONGER = ("-o", "max_tokens", "200", "-o", "temperature", "0")


def run(*arguments: str, **environment: str) -> str:
    """Run the program without standard input, and return what it prints."""
    command = [str(Path(sys.prefix) / "bin" / "llm"), *arguments]
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@scene
def chat() -> None:
    for model in MODELS:
        assert run("-m", model, "--no-stream", *BRIEF, QUESTION)
        assert run("-c", "-m", model, "--no-stream", *BRIEF, "And of Spain?")


@scene
def stream() -> None:
    for model in MODELS:
        assert run("-m", model, *BRIEF, QUESTION) == run("-m", model, "--no-stream", *BRIEF, QUESTION)


class Forcing(Chat):
    """A model as a plugin has one: llm has no option for `tool_choice`, and a small model calls no tool by itself."""

    def build_kwargs(self, prompt: Any, stream: bool) -> dict[str, Any]:
        choice = "none" if prompt.tool_results else "required"
        return {**super().build_kwargs(prompt, stream), "tool_choice": choice, "parallel_tool_calls": False}


@scene
def tools() -> None:
    """The chain calls the function, sends its result back, and ends with the answer; streamed and at once."""
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Return the weather in a city."""
        asked.append(city)
        return f"22 C in {city}"

    model: Any = Forcing("forcing", model_name=SERVICE.model, api_base=BASE_URL, supports_tools=True)
    model.needs_key = None
    for streamed in (False, True):
        asked.clear()
        options = {"max_tokens": 100, "temperature": 0}
        assert model.chain(QUESTION, tools=[get_weather], stream=streamed, options=options).text()
        assert len(asked) == 1


@scene
def structured_output() -> None:
    for model in MODELS:
        dog = json.loads(run("-m", model, *LONGER, "--schema", "name str, age int", "Invent a dog."))
        assert isinstance(dog["name"], str) and isinstance(dog["age"], int)


@scene
def embeddings() -> None:
    """The program knows OpenAI's names only: the service has an alias for one of them."""
    printed = run(
        "embed", "-m", "text-embedding-3-small", "-c", "a cat", OPENAI_BASE_URL=EMBEDDING_BASE_URL, OPENAI_API_KEY=KEY
    )
    assert len(json.loads(printed)) == SERVICE.embedding_dimensions


if __name__ == "__main__":
    play()
