"""Chat completions: from a request to its jobs, from their texts to messages and chunks."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.api.job_service import JobService
from app.api.openai import unenforced
from app.api.openai.call_reader import reader_of
from app.api.openai.chunk_stream import Choice, ChunkEncoder
from app.api.openai.envelope import envelope, finish_reason_of, usage_of
from app.api.openai.logprobs import chat_logprobs
from app.api.openai.plan import RequestPlan, copies, longest_first
from app.api.openai.reasoning import ThinkingReader, Thought
from app.api.openai.tool_calls import Call, Piece, Words, call_id
from app.api.openai.tool_schema import forced_schema, wanted_calls
from app.api.schemas.openai.chat import ChatBody
from app.api.schemas.openai.prompt_end import PromptEnd
from app.api.schemas.openai.responses import ResponseBody
from app.api.schemas.openai.tools import Tools
from app.jobs.job import Chat, FinishReason, Job, JobRequest, Kind, TokenLogprob
from app.jobs.principal import Principal

OBJECT, CHUNK_OBJECT, PREFIX = "chat.completion", "chat.completion.chunk", "chatcmpl"


def plan(body: ChatBody, jobs: JobService, principal: Principal) -> RequestPlan:
    """Raises ModelNotFound, InvalidRequest (the webhook, an adapter)."""
    config = jobs.config
    request = chat_request(body, body.messages, jobs, principal)

    def make_body(made: Sequence[Job]) -> dict[str, Any]:
        choices = [_message_choice(index, job, body) for index, job in enumerate(made)]
        return {**envelope(OBJECT, PREFIX, made[0], request, config), "choices": choices, "usage": usage_of(made)}

    def make_encoder(made: Sequence[Job]) -> ChunkEncoder:
        writers = [ChatWriter(index, job, body) for index, job in enumerate(made)]
        head = envelope(CHUNK_OBJECT, PREFIX, made[0], request, config)
        return ChunkEncoder(writers, head, prompts=1, includes_usage=body.include_usage)

    return RequestPlan(
        requests=copies(request, body.n),
        make_body=make_body,
        make_encoder=make_encoder if body.stream else None,
        unenforced=unenforced.of_conversation(body, config),
        field_names={**body.sent_names, **names_of_schemas(body), "params.": ""},
        prompt_fields=lambda _: longest_first(
            {"messages": body.messages, "functions" if body.tools.legacy else "tools": body.tools.tools}
        ),
    )


def chat_request(
    body: ChatBody | ResponseBody,
    messages: list[dict[str, Any]],
    jobs: JobService,
    principal: Principal,
    **content: Any,
) -> JobRequest:
    """Return the request of a job that continues a conversation.

    Raises ModelNotFound, InvalidRequest (the webhook, an adapter).
    """
    adapters = jobs.adapters.chosen(body.model, body.lora, "lora", principal.models)
    chat = Chat(
        messages=messages,
        tools=list(body.tools.tools),
        variables=body.variables,
        calls=wanted_calls(body.tools, body.format),
        **(body.prompt_end if isinstance(body, ChatBody) else PromptEnd()),
    )
    schema = forced_schema(body.tools, body.format)
    params = body.params if schema is None else {**body.params, "json_schema": schema}
    return jobs.make_request(
        Kind.GENERATE, body, principal, chat=chat, params=params, stream=body.stream, adapters=adapters, **content
    )


def names_of_schemas(body: ChatBody | ResponseBody) -> dict[str, str]:
    """Return the names of the fields that the schema of the output, and each part of `forced_schema`, come from."""
    tools, schema = body.tools, "params.json_schema"
    field = "functions" if tools.legacy else "tools"
    parameters = [f"{field}.{tool['function']['name']}.parameters" for tool in tools.tools]
    parts = {f"{schema}.$defs.tool{index}": name for index, name in enumerate(parameters)}
    if tools.choice.named is not None:
        return {schema: parameters[0]}
    if tools.choice.mode == "required":
        return {schema: field, **parts}
    if body.format is None:
        return {schema: field if parts else body.sent_names.get(schema, "json_schema")}
    answer = {f"{schema}.$defs.answer": body.format_name} if parts else {}
    return {schema: body.format_name, **answer, **parts}


def _message_choice(index: int, job: Job, body: ChatBody) -> Choice:
    """Return a choice of a response that is not a stream."""
    assert job.output is not None, "the job has succeeded"
    reader = _reader(body)
    pieces = [*reader.feed(job.output.text), *reader.finish(is_cut=_is_cut(job.output.finish_reason))]
    content = "".join(piece.text for piece in pieces if isinstance(piece, Words))
    calls = [_call(job.id, number, call) for number, call in enumerate(p for p in pieces if isinstance(p, Call))]
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    thoughts = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
    if thoughts:
        message["reasoning_content"] = thoughts
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
            yield from self._write(piece)
        if self._unsent:
            yield self._choice({"content": ""})

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]:
        yield from self._begin()
        for piece in self._reader.finish(is_cut=_is_cut(finish_reason)):
            yield from self._write(piece)
        yield self._choice({}, _finish_reason(finish_reason, self._tools, has_calls=self._calls > 0))

    def _begin(self) -> Iterator[Choice]:
        if not self._has_begun:
            self._has_begun = True
            yield {**self._choice({"role": "assistant", "content": "", "refusal": None}), "logprobs": None}

    def _write(self, piece: Piece | Thought) -> Iterator[Choice]:
        if isinstance(piece, Thought):
            yield self._choice({"reasoning_content": piece.text})
        elif isinstance(piece, Words):
            yield self._choice({"content": piece.text})
        else:
            begun = _call(self._job_id, self._calls, Call(piece.name, ""))
            arguments = {"arguments": piece.arguments}
            yield self._choice(self._call_delta({"index": self._calls, **begun}))
            yield self._choice(self._call_delta({"index": self._calls, "function": arguments}))
            self._calls += 1

    def _call_delta(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"function_call": call["function"]} if self._tools.legacy else {"tool_calls": [call]}

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> Choice:
        logprobs = None
        if self._unsent:
            logprobs, self._unsent = chat_logprobs(self._unsent), []
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _reader(body: ChatBody) -> ThinkingReader:
    tools, answers_by_schema = body.tools, body.format is not None
    calls = reader_of(tools.tools, named=tools.choice.named, parallel=tools.parallel, lists_only=answers_by_schema)
    return ThinkingReader(calls)


def _call(job_id: str, number: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call_id(job_id, number), "type": "function", "function": function}


def _is_cut(reason: FinishReason | None) -> bool:
    return reason is not FinishReason.STOP


def _finish_reason(reason: FinishReason | None, tools: Tools, *, has_calls: bool) -> str:
    if has_calls and reason is FinishReason.STOP:
        return "function_call" if tools.legacy else "tool_calls"
    return finish_reason_of(reason)
