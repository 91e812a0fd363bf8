"""The response object of a job, at any time while the job is kept, and the events by which its output grows.

What a response repeats of its request, and how its text is read, is in the job (`JobRequest.response`), so that every
process can make the object again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from app.api.job_ends import error_of
from app.api.openai.call_reader import reader_of
from app.api.openai.envelope import shown_model
from app.api.openai.logprobs import chat_logprobs
from app.api.openai.offered_calls import OfferedCallWriter, OutputWriter
from app.api.openai.plan import longest_first, rename_fields
from app.api.openai.tool_calls import Call, Piece, Reader, Words, call_id
from app.api.problems import openai_code
from app.errors import InvalidRequest, PromptTooLong
from app.jobs.job import FinishReason, Job, JobRequest, Status, TokenLogprob, Usage

Item = dict[str, Any]
ResponseEvent = dict[str, Any]

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"
PREFIX = "resp_"
_FIELD_NAMES = {"messages": "input", "params.max_tokens": "max_output_tokens", "params.": ""}
"""Of a response that is read later: by which other names parameters were sent, is not kept."""
STATUSES = {
    Status.QUEUED: "queued",
    Status.PROCESSING: "in_progress",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "cancelled",
    Status.EXPIRED: "failed",
}
_DEFAULTS: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
}


class ResponseOutputWriter:
    """Makes items out of the text of a job, as it comes: a message, function calls. Its events have no numbers yet."""

    def __init__(self, job_id: str, reader: Reader, *, with_logprobs: bool) -> None:
        self.items: list[Item] = []
        self._job_id = job_id
        self._reader = reader
        self._with_logprobs = with_logprobs
        self._unsent: list[dict[str, Any]] = []
        self._calls = 0

    def feed(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[ResponseEvent]:
        if self._with_logprobs:
            self._unsent += chat_logprobs(logprobs)["content"]
        for piece in self._reader.feed(text):
            yield from self._take(piece)

    def finish(self, status: str) -> Iterator[ResponseEvent]:
        """End the last message with this status. A complete output has at least an empty message."""
        for piece in self._reader.finish(is_cut=status != COMPLETED):
            yield from self._take(piece)
        if not self.items and status == COMPLETED:
            yield from self._begin_message()
        yield from self._close_message(status)

    def _take(self, piece: Piece) -> Iterator[ResponseEvent]:
        if isinstance(piece, Words):
            if not self._is_in_message:
                yield from self._begin_message()
            yield self._add_text(piece.text)
        else:
            yield from self._close_message(COMPLETED)
            yield from self._add_call(piece)

    @property
    def _is_in_message(self) -> bool:
        return bool(self.items) and self.items[-1]["status"] == IN_PROGRESS

    def _begin_message(self) -> Iterator[ResponseEvent]:
        head = {"id": self._id("msg"), "type": "message", "role": "assistant", "status": IN_PROGRESS}
        self.items.append({**head, "content": [_text("", [])]})
        yield self._item_event("added", {**head, "content": []})
        yield self._event("content_part.added", content_index=0, part=_text("", []))

    def _add_text(self, text: str) -> ResponseEvent:
        logprobs, self._unsent = self._unsent, []
        (part,) = self.items[-1]["content"]
        part["text"] += text
        part["logprobs"] += logprobs
        return self._event("output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _add_call(self, call: Call) -> Iterator[ResponseEvent]:
        item = {
            "id": self._id("fc"),
            "type": "function_call",
            "call_id": call_id(self._job_id, self._calls),
            "name": call.name,
            "arguments": "",
            "status": IN_PROGRESS,
        }
        self._calls += 1
        self.items.append(item)
        yield self._item_event("added", dict(item))
        yield self._event("function_call_arguments.delta", delta=call.arguments)
        item |= {"arguments": call.arguments, "status": COMPLETED}
        yield self._event("function_call_arguments.done", name=call.name, arguments=call.arguments)
        yield self._item_event("done", item)

    def _close_message(self, status: str) -> Iterator[ResponseEvent]:
        if not self._is_in_message:
            return
        item = self.items[-1]
        item["status"] = status
        (part,) = item["content"]
        part["logprobs"] += self._unsent
        self._unsent = []
        yield self._event("output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"])
        yield self._event("content_part.done", content_index=0, part=part)
        yield self._item_event("done", item)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._job_id.replace('-', '')}{len(self.items)}"

    def _item_event(self, what: str, item: Item) -> ResponseEvent:
        return {"type": f"response.output_item.{what}", "output_index": len(self.items) - 1, "item": item}

    def _event(self, kind: str, **more: Any) -> ResponseEvent:
        item_id, output_index = self.items[-1]["id"], len(self.items) - 1
        return {"type": f"response.{kind}", "item_id": item_id, "output_index": output_index, **more}


def _text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def response_id(job_id: str) -> str:
    return f"{PREFIX}{job_id}"


def writer_of(job_id: str, request: JobRequest) -> OutputWriter:
    assert request.response is not None and request.chat is not None, "the job was made for a response"
    reader = reader_of(request.chat.tools, **request.response["reader"])
    writer = ResponseOutputWriter(job_id, reader, with_logprobs="logprobs" in request.params)
    calls = request.response.get("calls")
    return OfferedCallWriter(writer, calls) if calls else writer


def response_object(job: Job, request: JobRequest) -> dict[str, Any]:
    """Return the response of a job as it is now."""
    output: list[Item] = []
    if job.status.is_final and job.output is not None:
        writer = writer_of(job.id, request)
        events = [*writer.feed(job.output.text, job.output.logprobs or ())]
        events += writer.finish(item_status(job.status, job.output.finish_reason))
        output = writer.items
    return response_with(job, request, output)


def item_status(status: Status, reason: FinishReason | None) -> str:
    """Return the status of the last item, at the end of its job."""
    is_whole = status is Status.SUCCEEDED and reason is not FinishReason.LENGTH
    return COMPLETED if is_whole else INCOMPLETE


def response_with(job: Job, request: JobRequest, output: list[Item]) -> dict[str, Any]:
    """Return the response of a job in the state of `job`, with that output."""
    assert request.response is not None, "the job was made for a response"
    reason = job.output.finish_reason if job.output else None
    status = "incomplete" if _is_cut_off(job.status, reason) else STATUSES[job.status]
    return {
        "id": response_id(job.id),
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if job.completed_at and status == "completed" else None,
        "status": status,
        "error": _error(job, request),
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": shown_model(request, job.model),
        "output": output,
        **_DEFAULTS,
        **request.response["echo"],
        "store": request.stored,
        "truncation": "disabled",
        "usage": None if job.usage is None else _usage(job.usage),
    }


def _is_cut_off(status: Status, reason: FinishReason | None) -> bool:
    return status is Status.SUCCEEDED and reason is FinishReason.LENGTH


def _error(job: Job, request: JobRequest) -> dict[str, Any] | None:
    if job.status not in (Status.FAILED, Status.EXPIRED):
        return None
    error = error_of(job.status, job.error)
    assert error is not None, "the job has failed"
    if isinstance(error, InvalidRequest):
        rename_fields(error, _FIELD_NAMES, lambda _: _prompt_fields(request))
    if isinstance(error, PromptTooLong):
        code = openai_code(error)  # not one of the documented codes, but OpenAI sends it, and clients look for it
    else:
        code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
    return {"code": code, "message": error.detail}


def _prompt_fields(request: JobRequest) -> list[str]:
    """Return what the prompt was made of. It does not know which messages are of an earlier response."""
    assert request.chat is not None and request.response is not None, "a response is made from messages"
    instructions = request.response["echo"].get("instructions")
    messages = request.chat.messages[instructions is not None :]
    return longest_first({"input": messages, "instructions": instructions, "tools": request.chat.tools})


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
