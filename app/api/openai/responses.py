"""Responses: from a request to its job, and back to a response by its id."""

import re
import uuid
from dataclasses import replace
from typing import Any

from app.api.job_service import JobService
from app.api.openai import unenforced
from app.api.openai.chat import chat_request, names_of_schemas
from app.api.openai.plan import RequestPlan, longest_first
from app.api.openai.response_object import PREFIX, STATUSES, Item, response_id, response_object
from app.api.openai.response_stream import ResponseEncoder
from app.api.request_parser import invalid_request
from app.api.schemas.job import JOB_ID
from app.api.schemas.openai.call_ids import join_calls
from app.api.schemas.openai.response_input import REFERENCE, Conversation, add_item
from app.api.schemas.openai.responses import ResponseBody
from app.errors import JobNotFound, ResponseNotFound
from app.jobs.job import Job, JobRequest, Status
from app.jobs.principal import Principal

_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})\d+")  # `ResponseOutputWriter` makes them from the job's id


def plan(body: ResponseBody, jobs: JobService, principal: Principal) -> RequestPlan:
    """Raises ModelNotFound, InvalidRequest (the previous response, the webhook, an adapter)."""
    jobs.adapters.chosen(body.model, body.lora, "lora", principal.models)  # before anything is read
    system = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    previous, owner = body.previous_response_id, principal.owner
    earlier = [] if previous is None else _conversation(previous, jobs, owner)
    messages = [*system, *earlier, *_with_items(body.messages, jobs, owner)]
    join_calls(messages)
    request = chat_request(body, messages, jobs, principal, response=_kept(body))
    return RequestPlan(
        requests=[request],
        make_body=lambda made: response_object(made[0], request),
        ignored=body.ignored,
        make_encoder=(lambda made: ResponseEncoder(made[0], request)) if body.stream else None,
        unenforced=unenforced.of_conversation(body, jobs.config),
        field_names={
            "messages": "input",
            "params.max_tokens": "max_output_tokens",
            **body.sent_names,
            **names_of_schemas(body),
            "params.": "",
        },
        prompt_fields=lambda _: longest_first(
            {
                "input": body.messages,
                "instructions": body.instructions,
                "tools": body.tools.tools,
                "previous_response_id": earlier,
            }
        ),
    )


def existing(response_id: str, jobs: JobService, owner: str | None) -> tuple[Job, JobRequest]:
    """Return the job of a response of this owner (None: of any), and its request. Raises ResponseNotFound."""
    job_id = response_id.removeprefix(PREFIX)
    missing = ResponseNotFound(f"no response has the id {response_id[:100]!r}: it never was, or its time is over")
    if not response_id.startswith(PREFIX) or not JOB_ID.fullmatch(job_id):
        raise missing
    try:
        job = jobs.read(job_id, owner)
        request = jobs.store.read_request(job.id)
    except JobNotFound:
        raise missing from None
    if request.response is None or not request.stored:
        raise missing
    return job, request


def _kept(body: ResponseBody) -> dict[str, Any]:
    tools = body.tools
    reader = {
        "named": tools.choice.named,
        "parallel": tools.parallel,
        "lists_only": body.format is not None,
    }
    calls = {one.called: reported for one in body.offered if (reported := one.reported())}
    return {"echo": body.echo, "reader": reader, "calls": calls}


def _conversation(previous_id: str, jobs: JobService, owner: str) -> list[dict[str, Any]]:
    """Return the messages of that response and its output, without its instructions. Raises InvalidRequest."""
    try:
        job, request = existing(previous_id, jobs, owner)
    except ResponseNotFound as error:
        raise invalid_request({"previous_response_id": [error.detail]}) from None
    if job.status is not Status.SUCCEEDED or job.output is None:
        reason = f"That response is {STATUSES[job.status]}; continue one that is completed."
        raise invalid_request({"previous_response_id": [reason]})
    assert request.chat is not None and request.response is not None, "a response is made from messages"
    messages = request.chat.messages[1 if "instructions" in request.response["echo"] else 0 :]
    as_called = replace(request, response={**request.response, "calls": {}})
    return [*messages, _message(response_object(job, as_called)["output"])]


def _with_items(messages: list[dict[str, Any]], jobs: JobService, owner: str) -> list[dict[str, Any]]:
    """Put the items of earlier responses in the place of their references. Raises InvalidRequest."""
    conversation = Conversation()
    outputs: dict[str, list[Item]] = {}
    for message in messages:
        if message["role"] != REFERENCE:
            conversation.messages.append(message)
            continue
        match = _ITEM_ID.fullmatch(message["id"])
        response = response_id(str(uuid.UUID(match[1]))) if match else ""
        if response not in outputs:
            try:
                outputs[response] = response_object(*existing(response, jobs, owner))["output"]
            except ResponseNotFound:
                outputs[response] = []
        item = next((item for item in outputs[response] if item["id"] == message["id"]), None)
        if item is None:
            reason = f"Item with id {message['id'][:100]!r} not found: send the item itself, or store its response."
            raise invalid_request({message["path"]: [reason]})
        add_item(conversation, item, message["path"])
    return conversation.messages


def _message(output: list[Item]) -> dict[str, Any]:
    """Return the assistant's message with these items."""
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
