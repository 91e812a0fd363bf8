"""The clients written for the original, unchanged, against the running service: each in a process of its own venv."""

import json
import os
import subprocess
from typing import Any

import httpx
import pytest

from tests.clients import environments
from tests.clients.catalog import FOLDER
from tests.stack import Stack
from tests.waiting import scaled

ORIGINAL = "original"
SECONDS = 60
PARAMS = {"temperature": 0, "max_tokens": 12, "repeat_penalty": 1.0}
CAPITAL = "The capital of France is"

Results = dict[str, Any]


def run(script: str, stack: Stack) -> Results:
    """Run a script of tests/clients/original and return the results of its calls."""
    if not environments.is_installed(ORIGINAL):
        assert not os.environ.get("CI"), "CI needs what `make test` installs for the published clients"
        pytest.skip("the published clients are not installed: make test")
    command = [str(environments.python(ORIGINAL)), "-I", str(FOLDER / ORIGINAL / script), stack.url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=scaled(SECONDS), check=False)
    assert ran.returncode == 0, ran.stderr
    results: Results = json.loads(ran.stdout)
    return results


@pytest.fixture(scope="module")
def langchain(smollm2: Stack) -> Results:
    return run("with_langchain.py", smollm2)


@pytest.fixture(scope="module")
def llm_api(smollm2: Stack) -> Results:
    return run("with_llm_api_python.py", smollm2)


@pytest.fixture
def text(http: httpx.Client) -> str:
    """The text of the service for the prompt that LangChain sends."""
    answer: str = http.post("/generate", json={"prompt": CAPITAL, "params": PARAMS}).json()
    return answer


# --- langchain-llm-api ------------------------------------------------------------------------------------------------


def test_a_langchain_call_gives_the_body_of_the_answer(langchain: Results, text: str) -> None:
    """A JSON string, as from the original: this client does not decode it."""
    assert "Paris" in text
    assert json.loads(langchain["called"]) == text


def test_langchains_stop_strings_end_the_text(langchain: Results, text: str) -> None:
    assert "." in text
    assert json.loads(langchain["called with stop"]) == text.partition(".")[0]
    assert json.loads(langchain["called again"]) == text


def test_langchain_streams_to_a_callback(langchain: Results, text: str) -> None:
    assert len(langchain["tokens"]) > 3
    assert langchain["streamed"] == "".join(langchain["tokens"]) == text


def test_langchain_chains(langchain: Results, text: str) -> None:
    assert json.loads(langchain["chained"]) == text


def test_langchain_embeds_documents_and_queries(langchain: Results) -> None:
    cat, dog = langchain["documents"]
    assert len(cat) == len(dog) == 576 and cat != dog
    assert langchain["query"] == pytest.approx(cat, abs=1e-6)


# --- llm-api-python ---------------------------------------------------------------------------------------------------


@pytest.fixture
def llm_api_text(llm_api: Results, http: httpx.Client) -> str:
    """The text of the service for the prompt that llm-api-python makes of messages."""
    answer: str = http.post("/generate", json={"prompt": llm_api["prompt"], "params": PARAMS}).json()
    assert "Paris" in answer
    return answer


def test_llm_api_python_creates_a_chat_completion(llm_api: Results, llm_api_text: str) -> None:
    for call in ("created", "with a timeout"):
        (choice,) = llm_api[call]["choices"]
        assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
        assert json.loads(choice["message"]["content"]) == llm_api_text, "this client does not decode it, either"


def test_llm_api_python_streams(llm_api: Results, llm_api_text: str) -> None:
    """The client reads a stream line by line and drops the line breaks, which separate two lines of one event."""
    assert len(llm_api["streamed"]) > 3
    assert "".join(llm_api["streamed"]) == llm_api_text.replace("\n", "")


def test_llm_api_python_awaits(llm_api: Results, llm_api_text: str) -> None:
    (choice,) = llm_api["awaited"]["choices"]
    assert json.loads(choice["message"]["content"]) == llm_api_text


def test_llm_api_python_streams_asynchronously(llm_api: Results, llm_api_text: str) -> None:
    """This method keeps the end of each line that it reads. How many tokens an event carries depends on the load."""
    assert all(delta.endswith("\n") for delta in llm_api["awaited stream"])
    assert "".join(delta[:-1] for delta in llm_api["awaited stream"]) == "".join(llm_api["streamed"])


def test_llm_api_python_raises_the_error_of_the_server(llm_api: Results) -> None:
    refused = llm_api["refused"]
    assert (refused["raised"], refused["status"]) == ("APIError", 422)
    assert "params.temprature" in refused["message"]
