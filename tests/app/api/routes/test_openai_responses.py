"""`/v1/responses` over a scripted worker: the job of a request, and the response of a text, at once and later."""

import json
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.config.settings import Config
from app.errors import InvalidRequest, PromptTooLong
from app.jobs.job import FinishReason, TokenLogprob
from app.jobs.redis_client import RedisClient
from tests.app.api.conftest import MODEL
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import parse
from tests.engines.instant import Instant
from tests.waiting import scaled
from workers.tokenizer_service import TokenizerService

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'


def post(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/v1/responses", json={"input": "Hello", **body})


def answered(client: FlaskClient, **body: Any) -> Any:
    response = post(client, **body)
    assert response.status_code == 200, response.text
    return response.get_json()


def ended(client: FlaskClient, response: Any) -> Any:
    """Return the response once its job has ended."""
    client.get(f"/jobs/{response['id'].removeprefix('resp_')}?wait=10")
    return client.get(f"/v1/responses/{response['id']}").get_json()


def events(response: TestResponse) -> list[Any]:
    assert response.mimetype == "text/event-stream"
    received = parse(response.get_data(as_text=True))
    decoded = [json.loads(event.data) for event in received]
    assert [event["type"] for event in decoded] == [event.name for event in received]
    return decoded


def text_of(response: Any) -> str:
    (message,) = response["output"]
    (part,) = message["content"]
    return str(part["text"])


def request_of(worker: ScriptedWorker, turn: int = -1) -> Any:
    return worker.turns[turn].request


def running_response(client: FlaskClient, worker: ScriptedWorker) -> Any:
    """A response in the background that has published "Hello" and runs until it is canceled."""
    has_spoken = threading.Event()
    worker.play = play_of("Hello", lambda _: has_spoken.set(), Turn.wait_for_cancel)
    response = answered(client, background=True)
    assert has_spoken.wait(scaled(10))
    return response


def test_the_answer_is_a_response(client: FlaskClient, worker: ScriptedWorker) -> None:
    answer = answered(client, model=MODEL, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5)
    job_id = worker.turns[0].claim.job_id
    assert request_of(worker).chat.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert (request_of(worker).params["temperature"], answer["temperature"]) == (0.5, 0.5)
    assert (answer["id"], answer["object"], answer["status"]) == (f"resp_{job_id}", "response", "completed")
    assert (answer["instructions"], answer["metadata"], answer["error"]) == ("Be brief.", {"a": "b"}, None)
    assert answer["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"], text_of(answer)) == (
        "message", "assistant", "completed", "Hello world",
    )  # fmt: skip
    assert client.get(f"/v1/responses/{answer['id']}").get_json() == answer


def test_items_become_messages(client: FlaskClient, worker: ScriptedWorker) -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": text} for text in ("one", "two")]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
            {"type": "output_text", "text": "earlier", "annotations": [], "logprobs": []}
        ]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "22 C"}]},
        {"role": "user", "content": "And?", "provider_specific_fields": {}},
    ]  # fmt: skip
    answered(client, input=items)
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for name in ("c1", "c2")
    ]
    assert request_of(worker).chat.messages == [
        {"role": "developer", "content": "one\ntwo"},
        {"role": "assistant", "content": "earlier", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "22 C"},
        {"role": "user", "content": "And?"},
    ]


def test_calls_of_tools_that_openai_knows_are_shown_with_their_outputs(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "c1", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "lsho_1", "output": '{"stdout": "a.txt"}'},
        {"type": "shell_call", "call_id": "c2", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "a.txt"}], "max_output_length": 100},
        {"type": "apply_patch_call", "call_id": "c3", "operation": {"type": "delete_file"}, "status": "completed"},
        {"type": "apply_patch_call_output", "call_id": "c3", "status": "failed"},
    ]  # fmt: skip
    answered(client, input=items)
    shown = [
        (call["function"]["name"], call["function"]["arguments"], result["tool_call_id"], result["content"])
        for message, result in zip(*[iter(request_of(worker).chat.messages[1:])] * 2, strict=True)
        for call in message["tool_calls"]
    ]
    assert shown == [
        ("local_shell", '{"command": ["ls"]}', "c1", '{"stdout": "a.txt"}'),
        ("shell", '{"commands": ["ls"]}', "c2", '[{"stdout": "a.txt"}]'),
        ("apply_patch", '{"type": "delete_file"}', "c3", "failed"),
    ]


@pytest.mark.parametrize("kind", ["compaction", "compaction_summary", "context_compaction"])
def test_a_compaction_which_only_its_server_can_read_is_passed_over(
    client: FlaskClient, worker: ScriptedWorker, kind: str
) -> None:
    answered(client, input=[{"type": kind, "id": "cmp_1", "encrypted_content": "x"}, {"role": "user", "content": "Hi"}])
    assert request_of(worker).chat.messages == [{"role": "user", "content": "Hi"}]


def test_tools_may_have_the_shape_of_chats(client: FlaskClient, worker: ScriptedWorker) -> None:
    nested = {"function": {name: value for name, value in WEATHER.items() if name != "type"}}
    custom = {"name": "note", "description": "Takes a note."}
    for tools, flat in (
        ([{"type": "function", **nested}], [WEATHER]),
        ([nested], [WEATHER]),
        ([{"type": "custom", "custom": custom}], [{"type": "custom", **custom}]),
    ):
        made = []
        for offered in (tools, flat):
            answered(client, tools=offered, tool_choice="required")
            made.append((request_of(worker).chat, request_of(worker).params))
        assert made[0] == made[1]


def test_calls_without_ids_and_their_outputs_belong_together_in_order(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    call = {"type": "function_call", "name": "weather", "arguments": "{}", "call_id": None}
    outputs = [{"type": "function_call_output", "output": text} for text in ("22 C", "9 C")]
    answered(client, input=[{"role": "user", "content": "Hi"}, call, call, *outputs])
    _, calls, *results = request_of(worker).chat.messages
    ids = ["call00000", "call00001"]
    assert [one["id"] for one in calls["tool_calls"]] == [one["tool_call_id"] for one in results] == ids
    assert [one["content"] for one in results] == ["22 C", "9 C"]


def test_an_output_without_an_id_belongs_to_the_call_of_the_previous_response(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.play = play_of(CALL, Turn.succeed)
    first = answered(client, tools=[WEATHER])
    output = {"type": "function_call_output", "output": {"celsius": 22}}
    answered(client, input=[output], previous_response_id=first["id"])
    result = request_of(worker).chat.messages[-1]
    call_id = first["output"][0]["call_id"]
    assert result == {"role": "tool", "tool_call_id": call_id, "content": '{"celsius": 22}'}


def test_a_response_continues_another_without_its_instructions(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of(CALL, Turn.succeed)
    first = answered(client, instructions="old", tools=[WEATHER])
    (call,) = first["output"]
    worker.play = play_of("Warm.", Turn.succeed)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "22 C"}
    second = answered(client, instructions="new", input=[output], previous_response_id=first["id"])
    answered(client, input="Thanks", previous_response_id=second["id"])
    roles = [(message["role"], message["content"]) for message in request_of(worker).chat.messages]
    assert roles == [
        ("user", "Hello"), ("assistant", None), ("tool", "22 C"), ("assistant", "Warm."), ("user", "Thanks"),
    ]  # fmt: skip
    (sent,) = request_of(worker).chat.messages[1]["tool_calls"]
    assert (sent["id"], sent["function"]["name"]) == (call["call_id"], "weather")


def test_the_tokens_of_a_request_are_counted_without_a_job(
    client: FlaskClient, worker: ScriptedWorker, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answered(client)
    chats: list[Any] = []

    def tokenize(self: Instant, text: Any, *, add_special: bool) -> list[int]:
        if chats.append(text) or len(chats) > 1:
            raise InvalidRequest("too long", errors={"messages": ["messages are too long"]})
        return [5, 6, 7]

    monkeypatch.setattr(Instant, "tokenize", tokenize)
    monkeypatch.setattr("workers.tokenizer_service.POLL_SECONDS", 0.05)  # the test waits for it at its end
    service = TokenizerService(redis_client, MODEL, Instant(Config(model_name=MODEL), lambda *_: None))
    service.start()
    try:
        request = {"input": "And?", "previous_response_id": first["id"], "tools": [WEATHER]}
        counted = client.post("/v1/responses/input_tokens", json=request)
        refused = client.post("/v1/responses/input_tokens", json=request)
    finally:
        service.stop()
    assert counted.get_json() == {"object": "response.input_tokens", "input_tokens": 3}
    assert [message["content"] for message in chats[0].messages] == ["Hello", "Hello world", "And?"]
    assert [tool["function"]["name"] for tool in chats[0].tools] == ["weather"]
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "input")
    assert len(worker.turns) == 1, "no job was made"


def test_items_of_an_earlier_response_may_be_sent_by_their_ids(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Let me see. ", CALL, Turn.succeed)
    first = answered(client, tools=[WEATHER], tool_choice="auto")
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    output = {"type": "function_call_output", "call_id": first["output"][1]["call_id"], "output": "22 C"}
    question = {"role": "user", "content": "Hello"}
    by_reference, as_items = (
        answered(client, input=[question, *items, output, {"role": "user", "content": "So?"}], tools=[WEATHER])
        and request_of(worker).chat.messages
        for items in (references, first["output"])
    )
    assert by_reference == as_items
    assert [message["role"] for message in by_reference] == ["user", "assistant", "tool", "user"]


@pytest.mark.parametrize("known", ["", "msg_1", "rs_0123456789abcdef0123456789abcdef0", "not stored"])
def test_an_item_that_is_not_found_is_refused_by_its_place(
    client: FlaskClient, worker: ScriptedWorker, known: str
) -> None:
    if known == "not stored":
        known = answered(client, store=False)["output"][0]["id"]
    items = [{"role": "user", "content": "Hello"}, {"type": "item_reference", "id": known}]
    response = post(client, input=items)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, "input.1")
    assert "not found" in error["message"]


def test_a_call_is_an_item_of_its_own(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Let me see. ", CALL, Turn.succeed)
    answer = answered(client, tools=[WEATHER], tool_choice="auto")
    message, call = answer["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert (call["type"], call["name"], json.loads(call["arguments"])) == (
        "function_call",
        "weather",
        {"city": "Paris"},
    )
    assert answer["tools"] == [WEATHER]
    assert request_of(worker).chat.tools == [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


@pytest.mark.parametrize(
    ("choice", "schema"),
    [({"type": "function", "name": "weather"}, {**CITY, "additionalProperties": False}), ("required", None)],
)
def test_a_call_that_must_be_is_forced(client: FlaskClient, worker: ScriptedWorker, choice: Any, schema: Any) -> None:
    worker.play = play_of(
        '{"city": "Paris"}' if schema else '[{"name": "weather", "arguments": {"city": "Paris"}}]', Turn.succeed
    )
    answer = answered(client, tools=[WEATHER], tool_choice=choice)
    assert [item["type"] for item in answer["output"]] == ["function_call"]
    used = request_of(worker).params["json_schema"]
    assert used == schema or used["type"] == "array"


def test_the_text_follows_a_schema(client: FlaskClient, worker: ScriptedWorker) -> None:
    form = {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}
    answer = answered(client, text={"format": form})
    assert request_of(worker).params["json_schema"] == {**CITY, "additionalProperties": False}
    assert answer["text"] == {"format": form}


def test_an_answer_that_is_cut_off_is_incomplete(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Hello", lambda turn: turn.succeed(reason=FinishReason.LENGTH))
    answer = answered(client, max_output_tokens=1)
    assert request_of(worker).params["max_tokens"] == 1
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][0]["status"] == "incomplete"


def test_a_response_that_is_cut_off_has_its_finished_calls(client: FlaskClient, worker: ScriptedWorker) -> None:
    texts = ("Let me see. ", CALL, "<tool_call>", '{"name": "wea')
    worker.play = play_of(*texts, lambda turn: turn.succeed(reason=FinishReason.LENGTH))
    answer = answered(client, tools=[WEATHER])
    message, call = answer["output"]
    assert (answer["status"], message["status"], call["status"]) == ("incomplete", "completed", "completed")
    assert (message["content"][0]["text"], call["arguments"]) == ("Let me see.", '{"city": "Paris"}')
    streamed = events(post(client, tools=[WEATHER], stream=True))
    assert streamed[-1]["type"] == "response.incomplete"
    outputs = [[{**item, "id": ""} for item in response["output"]] for response in (answer, streamed[-1]["response"])]
    assert outputs[0][0] == outputs[1][0]
    assert {**outputs[0][1], "call_id": ""} == {**outputs[1][1], "call_id": ""}


def test_logprobs_are_returned_where_they_are_requested(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of(lambda turn: turn.delta("Hi", TokenLogprob(token="Hi", logprob=-0.5, top={"Hi": -0.5})),
                       Turn.succeed)  # fmt: skip
    body: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    (entry,) = answered(client, **body)["output"][0]["content"][0]["logprobs"]
    assert (entry["token"], entry["bytes"], len(entry["top_logprobs"])) == ("Hi", [72, 105], 1)
    (delta,) = [event for event in events(post(client, **body, stream=True)) if event["type"].endswith("text.delta")]
    assert delta["logprobs"] == [entry]


def test_a_response_in_the_background_is_read_later(client: FlaskClient, worker: ScriptedWorker) -> None:
    gate = threading.Event()
    worker.play = play_of("Hello", gate, Turn.succeed)
    response = answered(client, background=True)
    assert response["status"] in ("queued", "in_progress") and response["background"] and response["output"] == []
    gate.set()
    done = ended(client, response)
    assert (done["status"], text_of(done)) == ("completed", "Hello") and done["completed_at"]


def test_a_response_in_the_background_reports_how_it_failed(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("prompt_too_long", "too long", {"messages": ["too long"]})
    done = ended(client, answered(client, background=True))
    assert (done["status"], done["error"]) == ("failed", {"code": "context_length_exceeded", "message": "too long"})
    error = post(client, stream=True).get_json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_a_response_is_canceled_and_deleted(client: FlaskClient, worker: ScriptedWorker) -> None:
    path = f"/v1/responses/{running_response(client, worker)['id']}"
    assert client.delete(path).status_code == 409
    assert client.post(f"{path}/cancel").status_code == 200
    done = ended(client, {"id": path.rpartition("/")[2]})
    assert (done["status"], done["output"][0]["status"]) == ("cancelled", "incomplete")
    assert client.delete(path).get_json()["deleted"] is True
    for answer in (client.get(path), client.post(f"{path}/cancel"), client.delete(path)):
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "response_not_found")


def kept_keys(redis_client: RedisClient, job_id: str) -> list[str]:
    return [key for key in redis_client.scan_iter("*") if job_id in key]


@pytest.mark.parametrize("stream", [False, True])
def test_of_a_response_that_is_not_stored_nothing_can_be_read(
    client: FlaskClient, worker: ScriptedWorker, redis_client: RedisClient, stream: bool
) -> None:
    sent = post(client, store=False, stream=stream)
    response = events(sent)[-1]["response"] if stream else sent.get_json()
    assert (response["status"], response["store"], text_of(response)) == ("completed", False, "Hello world")
    job_id = response["id"].removeprefix("resp_")
    assert client.get(f"/v1/responses/{response['id']}").status_code == 404
    assert client.get(f"/jobs/{job_id}").status_code == 404
    assert client.get("/jobs").get_json()["data"] == []
    assert kept_keys(redis_client, job_id) == []
    error = post(client, previous_response_id=response["id"]).get_json()["error"]
    assert error["param"] == "previous_response_id"


def test_a_response_that_is_not_stored_cannot_be_read_while_it_runs_and_goes_by_itself(
    client: FlaskClient, worker: ScriptedWorker, redis_client: RedisClient
) -> None:
    worker.play = play_of("Hello", Turn.wait_for_cancel)
    streaming = client.post("/v1/responses", json={"input": "x", "store": False, "stream": True}, buffered=False)
    next(streaming.iter_encoded())
    job_id = worker.turns[0].claim.job_id
    assert client.get(f"/v1/responses/resp_{job_id}").status_code == 404
    streaming.close()
    assert client.get(f"/jobs/{job_id}?wait=10").get_json()["status"] == "canceled"
    for key in kept_keys(redis_client, job_id):
        assert 0 < redis_client.ttl(key) <= 60


@pytest.mark.parametrize("body", [{"background": True}, {"webhook": {"url": "https://example.com/x"}}])
def test_a_response_that_is_not_stored_is_not_one_that_is_read_later(client: FlaskClient, body: dict[str, Any]) -> None:
    assert post(client, store=False, **body).get_json()["error"]["param"] == "store"


def test_counting_tokens_has_methods_of_its_own(client: FlaskClient) -> None:
    assert client.get("/v1/responses/input_tokens").status_code == 405
    allowed = client.options("/v1/responses/input_tokens").headers["Allow"]
    assert set(allowed.split(", ")) == {"POST", "OPTIONS"}


def test_what_is_no_response_is_not_found(client: FlaskClient, worker: ScriptedWorker) -> None:
    job_id = client.post("/agenerate", json={"prompt": "Hello"}).get_json()["id"]
    for name in (f"resp_{job_id}", job_id, "resp_1"):
        assert client.get(f"/v1/responses/{name}").status_code == 404
        error = post(client, previous_response_id=name).get_json()["error"]
        assert (error["code"], error["param"]) == ("invalid_request", "previous_response_id")


def test_a_stream_reports_every_step_in_order(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Let me ", "see. ", CALL, Turn.succeed)
    streamed = events(post(client, tools=[WEATHER], stream=True))
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    assert [event["type"].removeprefix("response.") for event in streamed] == [
        "created", "queued", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    last = streamed[-1]["response"]
    assert client.get(f"/v1/responses/{last['id']}").get_json() == last


@pytest.mark.parametrize("background", [True, False])
def test_a_stream_is_read_again_from_any_event_on(
    client: FlaskClient, worker: ScriptedWorker, background: bool
) -> None:
    gate = threading.Event()
    worker.play = play_of("Hello", gate, " world", Turn.succeed)
    if background:
        path = f"/v1/responses/{answered(client, background=True)['id']}"
        live = client.get(f"{path}?stream=true&starting_after=1", buffered=False)
        gate.set()
        streamed = events(live)
    else:
        gate.set()
        streamed = events(post(client, stream=True))
        path = f"/v1/responses/{streamed[0]['response']['id']}"
        streamed = streamed[2:]
    assert streamed[0]["sequence_number"] == 2
    for after in (-1, 2, 5, streamed[-1]["sequence_number"]):
        again = events(client.get(f"{path}?stream=true" + (f"&starting_after={after}" if after >= 0 else "")))
        expected = [event for event in streamed if event["sequence_number"] > after]
        assert again[len(again) - len(expected) :] == expected
        assert len(again) == len(expected) + (2 if after < 0 else 0)


def test_a_canceled_stream_ends_with_the_text_so_far(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = running_response(client, worker)
    client.post(f"/v1/responses/{response['id']}/cancel")
    ended(client, response)
    last = events(client.get(f"/v1/responses/{response['id']}?stream=true"))[-1]
    assert (last["type"], last["response"]["status"], text_of(last["response"])) == (
        "response.failed", "cancelled", "Hello",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": [{"type": []}]}]}, "input.0.output.0"),
        ({"input": [{"role": "user", "content": [{"type": {}, "refusal": "x"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "user", "content": [1]}]}, "input.0.content.0"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": [], "content": "x"}]}, "input.0.role"),
        ({"input": [{"type": ["x"]}]}, "input.0.type"),
        ({"input": [{"type": "custom_tool_call", "call_id": "1", "name": "x"}]}, "input.0.input"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}, "input.0.tools.0.type"),
        ({"input": [1]}, "input.0"),
        ({"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot"}}]}, "input.0.type"),
        ({"input": [{"type": "shell_call", "call_id": "1"}]}, "input.0.action"),
        ({"input": [{"type": "apply_patch_call", "call_id": "1", "operation": 1}]}, "input.0.operation"),
        ({"input": [{"type": "function_call_output", "call_id": 1, "output": "x"}]}, "input.0.call_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["everything"]}, "include.0"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools.0.type"),
        ({"tools": [{"name": "x"}]}, "tools.0.type"),
        ({"tools": ["x"]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "x", "format": {}}}]}, "tools.0.custom.format"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "custom", "name": "x", "format": {"type": "grammar"}}]}, "tools.0.format"),
        ({"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "namespace"}]}]}, "tools.0.tools.0.type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"verbosity": "\ud800"}}, "text"),
        ({"reasoning": {"summary": float("nan")}}, "reasoning"),
        ({"max_output_token": 5}, "max_output_token"),
        ({"metadata": {"a": 1}}, "metadata.a.value"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(client: FlaskClient, body: dict[str, Any], param: str) -> None:
    response = post(client, **body)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param), response.text


@pytest.mark.parametrize(
    ("body", "param", "shown"),
    [
        ({}, "input", "input"),
        ({"instructions": "x" * 500}, "instructions", "instructions and input"),
        ({"tools": [{**WEATHER, "description": "x" * 500}]}, "tools", "tools and input"),
        ({"input": "x" * 500, "instructions": "x"}, "input", "input and instructions"),
    ],
)
def test_a_response_that_is_too_long_is_told_what_its_prompt_is_made_of(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], param: str, shown: str
) -> None:
    detail = PromptTooLong.for_context("messages", tokens=600, context_tokens=512).detail
    worker.play = lambda turn: turn.fail("prompt_too_long", detail, {"messages": [detail]})
    error = post(client, **body).get_json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert error["message"] == PromptTooLong.for_context(shown, tokens=600, context_tokens=512).detail


def test_an_earlier_conversation_is_part_of_what_is_too_long(client: FlaskClient, worker: ScriptedWorker) -> None:
    first = answered(client, input="x" * 500)["id"]
    worker.play = lambda turn: turn.fail("prompt_too_long", "too long", {"messages": ["too long"]})
    assert post(client, previous_response_id=first).get_json()["error"]["param"] == "previous_response_id"


def test_a_failed_response_that_is_read_later_uses_the_names_of_the_request(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    detail = PromptTooLong.for_context("messages", tokens=600, context_tokens=512).detail
    worker.play = lambda turn: turn.fail("prompt_too_long", detail, {"messages": [detail]})
    done = ended(client, answered(client, background=True, instructions="x" * 500))
    shown = "instructions and input"
    assert done["error"]["message"] == PromptTooLong.for_context(shown, tokens=600, context_tokens=512).detail
    worker.play = lambda turn: turn.fail("invalid_request", "params.top_k: no", {"params.top_k": ["no"]})
    assert ended(client, answered(client, background=True))["error"]["message"] == "top_k: no"
