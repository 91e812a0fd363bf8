"""Responses: from a request to its job, from the job to a response, at any time while the job is kept.

What a response repeats of its request, and how its text is read, travels in the job (`JobRequest.response`): it is told
again by any process.
"""

from collections.abc import Mapping
from typing import Any

from app.api import dispatch
from app.api.openai.envelope import check_model
from app.api.openai.plan import AnswerPlan
from app.api.openai.response_items import COMPLETED, INCOMPLETE, Item, ResponseOutputWriter
from app.api.openai.tool_calls import reader_of
from app.api.openai.tool_schema import forced_schema, wanted_calls
from app.api.request_parser import invalid_request
from app.api.schemas.job import JOB_ID
from app.api.schemas.openai.responses import ResponseBody
from app.api.services import services
from app.config.settings import Config
from app.errors import InvalidRequest, JobNotFound, LLMAPIError, ResponseNotFound
from app.jobs.job import Chat, FinishReason, Job, JobError, JobRequest, Kind, Status, Usage

PREFIX = "resp_"
_STATUSES = {
    Status.QUEUED: "queued",
    Status.PROCESSING: "in_progress",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "cancelled",
    Status.EXPIRED: "failed",
}
_UNSAID: dict[str, Any] = {
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


def plan(body: ResponseBody, config: Config) -> AnswerPlan:
    """Raises ModelNotFound, InvalidRequest (the previous response)."""
    check_model(body.model, config.model_name)
    system = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    earlier = [] if body.previous_response_id is None else _conversation(body.previous_response_id)
    chat = Chat(
        messages=[*system, *earlier, *body.messages],
        tools=list(body.tools.tools),
        variables=body.variables,
        calls=wanted_calls(body.tools, body.format),
    )
    schema = forced_schema(body.tools, body.format)
    params = body.params if schema is None else {**body.params, "json_schema": schema}
    request = dispatch.job_request(
        Kind.GENERATE, body, chat=chat, params=params, stream=body.stream, response=_kept(body)
    )

    def answer(jobs: list[Job]) -> dict[str, Any]:
        (job,) = jobs
        return response_object(job, request)

    forced = "text.format" if body.format is not None else "tools" if body.tools.tools else "json_schema"
    names = {"messages": "input", "params.max_tokens": "max_output_tokens", "params.json_schema": forced, "params.": ""}
    return AnswerPlan(requests=[request], answer=answer, field_names=names)


def existing(response_id: str) -> tuple[Job, JobRequest]:
    """A response that the caller may see. Raises ResponseNotFound."""
    job_id = response_id.removeprefix(PREFIX)
    missing = ResponseNotFound(f"no response has the id {response_id[:100]!r}: it never was, or its time is over")
    if not response_id.startswith(PREFIX) or not JOB_ID.fullmatch(job_id):
        raise missing
    try:
        job = dispatch.existing_job(job_id)
        request = services().store.read_request(job.id)
    except JobNotFound:
        raise missing from None
    if request.response is None:
        raise missing
    return job, request


def response_id(job_id: str) -> str:
    return f"{PREFIX}{job_id}"


def writer_of(job_id: str, request: JobRequest) -> ResponseOutputWriter:
    assert request.response is not None and request.chat is not None, "the job was made for a response"
    reader = reader_of(request.chat.tools, **request.response["reader"])
    return ResponseOutputWriter(job_id, reader, tells_logprobs="logprobs" in request.params)


def response_object(job: Job, request: JobRequest) -> dict[str, Any]:
    """As the job is now."""
    output: list[Item] = []
    if job.status.is_final and job.output is not None:
        writer = writer_of(job.id, request)
        events = [*writer.feed(job.output.text, job.output.logprobs or ())]
        events += writer.finish(item_status(job.status, job.output.finish_reason))
        output = writer.items
    return response_with(job, request, output)


def item_status(status: Status, reason: FinishReason | None) -> str:
    """Of the item that a text ends with."""
    is_whole = status is Status.SUCCEEDED and reason is not FinishReason.LENGTH
    return COMPLETED if is_whole else INCOMPLETE


def response_with(job: Job, request: JobRequest, output: list[Item]) -> dict[str, Any]:
    """The response of a job in the state that `job` tells, with that output."""
    assert request.response is not None, "the job was made for a response"
    reason = job.output.finish_reason if job.output else None
    status = "incomplete" if _is_cut_off(job.status, reason) else _STATUSES[job.status]
    return {
        "id": response_id(job.id),
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if job.completed_at and status == "completed" else None,
        "status": status,
        "error": _error(job.status, job.error),
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": job.model,
        "output": output,
        **_UNSAID,
        **request.response["echo"],
        "store": True,
        "truncation": "disabled",
        "usage": None if job.usage is None else _usage(job.usage),
    }


def _is_cut_off(status: Status, reason: FinishReason | None) -> bool:
    return status is Status.SUCCEEDED and reason is FinishReason.LENGTH


def _kept(body: ResponseBody) -> dict[str, Any]:
    tools = body.tools
    reader = {
        "named": tools.choice.named,
        "parallel": tools.parallel,
        "lists_only": body.format is not None,
    }
    return {"echo": body.echo, "reader": reader}


def _conversation(previous_id: str) -> list[dict[str, Any]]:
    """What that response was asked and has said, but for its instructions. Raises InvalidRequest."""
    try:
        job, request = existing(previous_id)
    except ResponseNotFound as error:
        raise invalid_request({"previous_response_id": [error.detail]}) from None
    if job.status is not Status.SUCCEEDED or job.output is None:
        told = f"That response is {_STATUSES[job.status]}; go on behind one that is completed."
        raise invalid_request({"previous_response_id": [told]})
    assert request.chat is not None and request.response is not None, "a response answers messages"
    asked = request.chat.messages[1 if "instructions" in request.response["echo"] else 0 :]
    said = _message(response_object(job, request)["output"])
    return [*asked, said]


def _message(output: list[Item]) -> dict[str, Any]:
    """The assistant's message that the items are of."""
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = [
        {
            "id": item["call_id"],
            "type": "function",
            "function": {"name": item["name"], "arguments": item["arguments"]},
        }
        for item in output
        if item["type"] == "function_call"
    ]
    content = "\n".join(texts)
    return {"role": "assistant", "content": content or (None if calls else "")} | (
        {"tool_calls": calls} if calls else {}
    )


def _error(status: Status, job_error: JobError | None) -> dict[str, Any] | None:
    if status not in (Status.FAILED, Status.EXPIRED):
        return None
    error: LLMAPIError | None = dispatch.error_of(status, job_error)
    assert error is not None, "the job has failed"
    code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
    return {"code": code, "message": error.detail}


def _usage(usage: Usage) -> Mapping[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
