"""Requests that are small to send and large to serve."""

import json
from typing import Any

from tests.abuse.attacker import Outcomes, Target, post_all
from tests.abuse.service import LOOP

_SPECIAL = "<|im_start|>" * 320_000
_DEPTH = 600


def special_tokens(target: Target) -> Outcomes:
    """Prompts of 320,000 special tokens."""
    body = json.dumps({"prompt": _SPECIAL, "params": {"max_tokens": 1}}).encode()
    return post_all(target, "/generate", lambda _: body, 4)


def special_tokens_to_count(target: Target) -> Outcomes:
    """The same text to /tokenize."""
    body = json.dumps({"text": _SPECIAL}).encode()
    return post_all(target, "/tokenize", lambda _: body, 4)


def schemas(target: Target) -> Outcomes:
    """Distinct schemas that take long to compile, 24 at once."""

    def body(number: int) -> Any:
        members = {f"m{part}": {"type": "number", "multipleOf": 1 + (number * 40 + part) / 1000} for part in range(40)}
        schema = {"type": "object", "properties": members, "required": list(members)}
        return {"prompt": "a number", "params": {"json_schema": schema, "max_tokens": 1}}

    return post_all(target, "/generate", body, 24, at_most=24)


def parameters(target: Target) -> Outcomes:
    """300,000 unknown parameters."""
    body = json.dumps({"prompt": "p", "params": {f"t{number}": 1 for number in range(300_000)}}, separators=(",", ":"))
    return post_all(target, "/generate", lambda _: body.encode(), 2)


def depth(target: Target) -> Outcomes:
    """Values that nest 600 deep, in the variables of a template and in the schema of a tool."""
    nested = '{"properties": {"a": ' * _DEPTH + "{}" + "}}" * _DEPTH
    function = f'{{"name": "f", "parameters": {nested}}}'
    tools = f'"tool_choice": "required", "tools": [{{"type": "function", "function": {function}}}]'
    chats = [
        f'{{"messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 4, {more}}}'.encode()
        for more in (f'"chat_template_kwargs": {nested}', tools)
    ]
    return post_all(target, "/v1/chat/completions", lambda number: chats[number % 2], 4)


def choices(target: Target) -> Outcomes:
    """128 choices of one request."""
    body = {"prompt": "Once upon a time", "n": 128, "max_tokens": 64, "temperature": 1}
    return post_all(target, "/v1/completions", lambda _: body, 1)


def looping_template(target: Target) -> Outcomes:
    """Messages for which the chat template never ends."""
    body = {"messages": [{"role": "user", "content": LOOP}], "max_tokens": 4}
    return post_all(target, "/v1/chat/completions", lambda _: body, 12)
