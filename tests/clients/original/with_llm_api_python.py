"""`llm-api-python` 0.0.2: `python with_llm_api_python.py URL` prints the result of each call as one JSON object."""

import asyncio
import json
import sys
from typing import Any

import llm_api
from llm_api import ChatCompletion

PARAMS = {"max_tokens": 12, "temperature": 0, "repeat_penalty": 1.0}
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
ASKED: dict[str, Any] = {"messages": MESSAGES, "params": PARAMS}


def prompt_of(messages: list[dict[str, str]]) -> str:
    """Return the prompt that the client makes of messages."""
    prompt: str = ChatCompletion._ChatCompletion__prepare_prompt(messages=messages)
    return prompt


async def asynchronously() -> dict[str, Any]:
    whole = await ChatCompletion.acreate(**ASKED)
    deltas = [delta async for delta in await ChatCompletion.acreate(**ASKED, stream=True)]
    return {"awaited": whole, "awaited stream": deltas}


def refusal() -> dict[str, Any]:
    try:
        ChatCompletion.create(messages=MESSAGES, params={"temprature": 0})
    except llm_api.LlmApiError as error:
        return {"raised": type(error).__name__, "status": error.http_status, "message": str(error)}
    return {}


def main(url: str) -> dict[str, Any]:
    llm_api.api_base = url
    llm_api.api_key = "any"  # without a key the client sends no request, even if the server needs none
    return {
        "prompt": prompt_of(MESSAGES),
        "created": ChatCompletion.create(**ASKED),
        "streamed": list(ChatCompletion.create(**ASKED, stream=True)),
        "with a timeout": ChatCompletion.create(**ASKED, request_timeout=60),
        "refused": refusal(),
        **asyncio.run(asynchronously()),
    }


print(json.dumps(main(sys.argv[1])))
