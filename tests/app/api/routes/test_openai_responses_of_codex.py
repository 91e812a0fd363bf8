"""`/v1/responses` as Codex sends it: custom tools, namespaces, reasoning, and what only OpenAI's servers have."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from openai.types.responses import Response, ResponseCustomToolCall, ResponseFunctionToolCall

from app.api.ignored_fields import HEADER
from tests.app.api.routes.test_openai_responses import answered, events, post, request_of
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of

SHELL = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
    "output_schema": None,
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin hunk+ end"},
}
CALENDAR = {
    "type": "namespace",
    "name": "mcp__calendar__",
    "description": "Tools in the mcp__calendar__ namespace.",
    "tools": [{"type": "function", "name": "create", "parameters": {"type": "object", "properties": {}}}],
}
HOSTED = [{"type": "web_search", "external_web_access": False}, {"type": "image_generation", "output_format": "png"}]
TURN = {
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be careful."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ],
    "tools": [SHELL, PATCH, CALENDAR, *HOSTED],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "019",
    "text": {"verbosity": "medium"},
    "client_metadata": {"x-codex-installation-id": "1"},
}


def written(name: str, **arguments: Any) -> Any:
    """Return a play in which the model calls a function."""
    call = json.dumps({"name": name, "arguments": arguments})
    return play_of(f"<tool_call>{call}", "</tool_call>", Turn.succeed)


def test_a_turn_is_streamed_to_its_end(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = post(client, **TURN)
    streamed = events(response)
    assert (streamed[0]["type"], streamed[-1]["type"]) == ("response.created", "response.completed")
    assert streamed[-1]["response"]["usage"]["total_tokens"] == 5
    functions = [tool["function"] for tool in request_of(worker).chat.tools]
    assert [function["name"] for function in functions] == ["exec_command", "apply_patch", "mcp__calendar__create"]
    assert functions[0]["parameters"] == SHELL["parameters"]
    assert "start: begin hunk+ end" in functions[1]["description"]
    assert functions[1]["parameters"]["required"] == ["input"]
    assert request_of(worker).chat.variables == {"reasoning_effort": "medium"}


def test_tools_that_only_openais_servers_have_are_ignored_and_named(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    assert post(client, **TURN).headers[HEADER] == "tools.1.format, tools.3.web_search, tools.4.image_generation"
    answered(client, tools=HOSTED)
    assert request_of(worker).chat.tools == []


def test_a_call_of_a_custom_tool_has_its_text_as_input(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = written("apply_patch", input='*** Begin "Patch"\n')
    response = answered(client, tools=[PATCH])
    (item,) = response["output"]
    parsed = Response.model_validate(response).output[0]
    assert isinstance(parsed, ResponseCustomToolCall)
    assert (parsed.name, parsed.input, parsed.call_id) == ("apply_patch", '*** Begin "Patch"\n', item["call_id"])
    assert "arguments" not in item and item["id"].startswith("ctc_")


def test_a_call_of_a_custom_tool_is_streamed_with_events_of_its_own(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.play = written("apply_patch", input="x")
    streamed = events(post(client, tools=[PATCH, SHELL], stream=True))
    kinds = [event["type"].removeprefix("response.") for event in streamed]
    assert kinds[3:-1] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    added, delta, done, item = streamed[3:-1]
    assert (delta["delta"], done["input"], item["item"]["input"], added["item"]["input"]) == ("x", "x", "x", "")
    assert added["item"]["id"] == delta["item_id"] == done["item_id"] == item["item"]["id"]
    assert streamed[-1]["response"]["output"] == [item["item"]]
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))


def test_a_call_in_a_namespace_is_reported_with_it(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = written("mcp__calendar__create", day=1)
    response = answered(client, tools=[CALENDAR])
    parsed = Response.model_validate(response).output[0]
    assert isinstance(parsed, ResponseFunctionToolCall)
    assert (parsed.namespace, parsed.name, parsed.arguments) == ("mcp__calendar__", "create", '{"day": 1}')
    streamed = events(post(client, tools=[CALENDAR], stream=True))
    assert [event["name"] for event in streamed if event["type"].endswith("arguments.done")] == ["create"]


def test_the_model_reads_earlier_calls_under_the_names_by_which_it_makes_them(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": None},
        {"type": "custom_tool_call", "status": "completed", "call_id": "c1", "name": "apply_patch", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done."},
        {"type": "function_call", "namespace": "mcp__calendar__", "name": "create", "call_id": "c2", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "ok"}]},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "So."}]},
        {"type": "message", "role": "assistant", "phase": "final", "content": [{"type": "output_text", "text": "Yes"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Left over."}], "encrypted_content": "x"},
    ]
    answered(client, input=items, tools=[PATCH, CALENDAR])
    patch = {"id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": '{"input": "x"}'}}
    create = {"id": "c2", "type": "function", "function": {"name": "mcp__calendar__create", "arguments": "{}"}}
    assert request_of(worker).chat.messages == [
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [patch]},
        {"role": "tool", "tool_call_id": "c1", "content": "Done."},
        {"role": "assistant", "content": None, "tool_calls": [create]},
        {"role": "tool", "tool_call_id": "c2", "content": "ok"},
        {"role": "assistant", "content": "Yes", "reasoning_content": "So."},
    ]


def test_a_response_is_continued_with_the_calls_as_the_model_made_them(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.play = written("apply_patch", input="x")
    first = answered(client, tools=[PATCH])
    output = {"type": "custom_tool_call_output", "call_id": first["output"][0]["call_id"], "output": "Done."}
    answered(client, input=[output], previous_response_id=first["id"], tools=[PATCH])
    (call,) = request_of(worker).chat.messages[1]["tool_calls"]
    assert call["function"] == {"name": "apply_patch", "arguments": '{"input": "x"}'}


def test_tools_in_the_input_are_offered_beside_the_others(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}
    items = [{"type": "additional_tools", "role": "developer", "tools": [more]}, {"role": "user", "content": "Hello"}]
    worker.play = written("functions__exec", input="ls")
    (item,) = answered(client, input=items, tools=[SHELL])["output"]
    assert (item["type"], item["namespace"], item["name"], item["input"]) == (
        "custom_tool_call", "functions", "exec", "ls",
    )  # fmt: skip
    names = [tool["function"]["name"] for tool in request_of(worker).chat.tools]
    assert names == ["exec_command", "functions__exec"]


@pytest.mark.parametrize("kind", ["custom", "function"])
def test_a_custom_tool_may_be_required_by_its_name(client: FlaskClient, worker: ScriptedWorker, kind: str) -> None:
    worker.play = play_of('{"input":', ' "[0-9]"}', Turn.succeed)
    number = {"type": "custom", "name": "number", "format": {"type": "grammar", "syntax": "regex", "definition": "x|y"}}
    (item,) = answered(client, tools=[SHELL, number], tool_choice={"type": kind, "name": "number"})["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "[0-9]")
    assert request_of(worker).params["json_schema"]["properties"]["input"]["pattern"] == "^(?:x|y)$"


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        ({"input": []}, [{"role": "user", "content": ""}]),
        ({"input": ""}, [{"role": "user", "content": ""}]),
        ({"input": [], "instructions": "Be brief."}, [{"role": "system", "content": "Be brief."}]),
    ],
)
def test_an_empty_probe_is_answered(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any], messages: list[Any]
) -> None:
    answered(client, **sent)
    assert request_of(worker).chat.messages == messages
