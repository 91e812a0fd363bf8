"""Chat completions: from a request to its jobs, from their texts to messages and chunks."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from app.contract.jobs import Chat, FinishReason, Job, JobRequest, TokenLogprob
from app.openai.closed_schema import closed
from app.openai.envelope import FINISH_REASONS
from app.openai.logprobs import chat_logprobs
from app.openai.tool_calls import ArgumentsReader, CallBegins, CallReader, Piece, PlainReader, Reader, Words
from app.openai.tool_schema import schema_of_arguments, schema_of_calls, schema_of_calls_or
from app.schemas.openai.chat import ChatBody
from app.schemas.openai.tools import Tools

OBJECT, CHUNK_OBJECT, PREFIX = "chat.completion", "chat.completion.chunk", "chatcmpl"
_CALL_ID_DIGITS = 9  # as Mistral's template wants them

Choice = dict[str, Any]


def with_chat(request: JobRequest, body: ChatBody) -> JobRequest:
    chat = Chat(
        messages=body.messages, tools=list(body.tools.tools), variables=body.variables, calls=_wanted_calls(body)
    )
    schema = _schema(body)
    params = body.params if schema is None else {**body.params, "json_schema": schema}
    return replace(request, chat=chat, params=params)


def field_names(body: ChatBody) -> dict[str, str]:
    """What the worker's names of parameters are called in this request."""
    forced = "response_format" if body.format is not None else "tools" if body.tools.tools else "json_schema"
    return {"params.json_schema": forced, "params.": ""}


def message_choice(index: int, job: Job, body: ChatBody) -> Choice:
    """A choice of a whole answer."""
    assert job.output is not None, "the job has succeeded"
    reader = _reader(body)
    pieces = [*reader.feed(job.output.text), *reader.finish()]
    content = "".join(piece.text for piece in pieces if isinstance(piece, Words))
    calls = _calls(job.id, pieces)
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if calls and body.tools.legacy:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    logprobs = chat_logprobs(job.output.logprobs or ()) if "logprobs" in body.params else None
    reason = _finish_reason(job.output.finish_reason, body.tools, has_calls=bool(calls))
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


class ChatWriter:
    """Writes one choice in chunks."""

    def __init__(self, index: int, job: Job, body: ChatBody) -> None:
        self._index = index
        self._job_id = job.id
        self._tools = body.tools
        self._reader = _reader(body)
        self._has_begun = False
        self._calls = 0
        self._unsent: list[TokenLogprob] | None = [] if "logprobs" in body.params else None

    def delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Choice]:
        yield from self._begin()
        if self._unsent is not None:
            self._unsent += logprobs
        for piece in self._reader.feed(text):
            yield self._choice(self._delta_of(piece))
        if self._unsent:
            yield self._choice({"content": ""})

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]:
        yield from self._begin()
        for piece in self._reader.finish():
            yield self._choice(self._delta_of(piece))
        yield self._choice({}, _finish_reason(finish_reason, self._tools, has_calls=self._calls > 0))

    def _begin(self) -> Iterator[Choice]:
        if not self._has_begun:
            self._has_begun = True
            yield {**self._choice({"role": "assistant", "content": "", "refusal": None}), "logprobs": None}

    def _delta_of(self, piece: Piece) -> dict[str, Any]:
        if isinstance(piece, Words):
            return {"content": piece.text}
        if isinstance(piece, CallBegins):
            self._calls += 1
            function = {"name": piece.name, "arguments": ""}
            if self._tools.legacy:
                return {"function_call": function}
            call = {"id": _call_id(self._job_id, self._calls - 1), "type": "function", "function": function}
            return {"tool_calls": [{"index": self._calls - 1, **call}]}
        arguments = {"arguments": piece.text}
        if self._tools.legacy:
            return {"function_call": arguments}
        return {"tool_calls": [{"index": self._calls - 1, "function": arguments}]}

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> Choice:
        logprobs = None
        if self._unsent:
            logprobs, self._unsent = chat_logprobs(self._unsent), []
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _schema(body: ChatBody) -> dict[str, Any] | None:
    """What the text must follow, if anything."""
    tools = body.tools
    answer: dict[str, Any] | None = closed(body.format)
    if tools.choice.named is not None:
        return schema_of_arguments(tools.tools[0])
    if tools.choice.mode == "required":
        return schema_of_calls(tools.tools, parallel=tools.parallel)
    if answer is not None and tools.tools:
        return schema_of_calls_or(answer, tools.tools, parallel=tools.parallel)
    return answer


def _wanted_calls(body: ChatBody) -> dict[str, Any]:
    tools = body.tools
    if not tools.tools:
        return {}
    named = tools.choice.named
    choice = tools.choice.mode if named is None else {"type": "function", "function": {"name": named}}
    return {"tool_choice": choice, "parallel_tool_calls": tools.parallel, "schema": closed(body.format)}


def _reader(body: ChatBody) -> Reader:
    tools = body.tools
    if not tools.tools:
        return PlainReader()
    if tools.choice.named is not None:
        return ArgumentsReader(tools.choice.named)
    names = [tool["function"]["name"] for tool in tools.tools]
    return CallReader(names, most=None if tools.parallel else 1, lists_only=body.format is not None)


def _calls(job_id: str, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if isinstance(piece, CallBegins):
            function = {"name": piece.name, "arguments": ""}
            calls.append({"id": _call_id(job_id, len(calls)), "type": "function", "function": function})
        elif not isinstance(piece, Words):
            calls[-1]["function"]["arguments"] += piece.text
    return calls


def _call_id(job_id: str, number: int) -> str:
    """The same whenever the answer is told."""
    return hashlib.sha256(f"{job_id} {number}".encode()).hexdigest()[:_CALL_ID_DIGITS]


def _finish_reason(reason: FinishReason | None, tools: Tools, *, has_calls: bool) -> str:
    if has_calls and reason is FinishReason.STOP:
        return "function_call" if tools.legacy else "tool_calls"
    return FINISH_REASONS.get(reason, "stop") if reason is not None else "stop"
