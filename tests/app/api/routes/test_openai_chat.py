"""`/v1/chat/completions` over a scripted worker: the job of a request, and the answer of a text."""

import json
import threading
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.errors import PromptTooLong
from app.jobs.job import FinishReason, TokenLogprob
from tests.app.api.conftest import MODEL
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.waiting import scaled

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
CALLED = {"id": "a1", "type": "function", "function": {"name": "time", "arguments": "{}"}}


def chat(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/v1/chat/completions", json={"model": MODEL, "messages": HELLO, **body})


def answered(client: FlaskClient, **body: Any) -> Any:
    response = chat(client, **body)
    assert response.status_code == 200, response.text
    return response.get_json()


def refused(client: FlaskClient, **body: Any) -> tuple[int, str, str]:
    response = chat(client, **body)
    error = response.get_json()["error"]
    assert error["type"] == "invalid_request_error"
    return response.status_code, error["param"], error["message"]


def chunks(response: TestResponse) -> list[Any]:
    """Return the chunks of a stream that ended without an error."""
    events = response.get_data(as_text=True).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2] if event.startswith("data: ")]


def params(worker: ScriptedWorker) -> Any:
    return worker.turns[-1].request.params


def test_the_answer_is_a_chat_completion(client: FlaskClient, worker: ScriptedWorker) -> None:
    answer = answered(client)
    job_id = worker.turns[0].claim.job_id
    assert answer["created"] == pytest.approx(time.time(), abs=5)
    assert answer["system_fingerprint"].startswith("fp_")
    assert {name: answer[name] for name in ("id", "object", "model", "choices", "usage")} == {
        "id": f"chatcmpl-{job_id}",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }


def test_the_answer_has_the_location_of_its_job(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert chat(client).headers["Location"] == f"/jobs/{worker.turns[0].claim.job_id}"


def test_the_worker_gets_the_conversation_and_canonical_parameters(client: FlaskClient, worker: ScriptedWorker) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Hello", "name": "Ann"},
    ]
    more = {"temperature": 0.5, "top_p": 0.9, "stop": "x", "seed": -2, "presence_penalty": 1, "logit_bias": {"5": -100}}
    answered(client, messages=messages, max_completion_tokens=7, max_tokens=3, top_k=4, n_predict=None, **more)
    request = worker.turns[0].request
    assert request.chat.messages == [
        {"role": "developer", "content": "Be\nbrief."},
        {"role": "user", "content": "Hello", "name": "Ann"},
    ]
    assert request.params == {
        "max_tokens": 7,
        "repeat_penalty": 1.0,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 2**32 - 2,
        "presence_penalty": 1.0,
        "logit_bias": {"5": -100.0},
        "top_k": 4,
    }


def test_a_message_that_was_answered_with_may_be_sent_back_as_it_is(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    call = {"id": "a1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    nothing = {"refusal": None, "annotations": None, "audio": None, "function_call": None}
    sent = {"role": "assistant", "content": None, "tool_calls": [call], **nothing}
    answered(client, messages=[*HELLO, sent, {"role": "tool", "tool_call_id": "a1", "content": "noon"}])
    assert worker.turns[0].request.chat.messages[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a1", "content": "noon"},
    ]


def test_messages_of_other_servers_and_clients_may_be_sent_back_with_all_that_they_carry(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    function = {**CALLED["function"], "parsed_arguments": {}}  # type: ignore[dict-item]
    more = {"provider_specific_fields": {"a": 1}, "extra_content": {"google": {}}, "index": 0}
    details = {"reasoning_details": [{"type": "reasoning.text"}], "thinking_blocks": [], "audio": None}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": "Hello", "id": "m1", "tool_calls": [], "refusal": None, "cache_control": {}},
        {"role": "assistant", "content": "{}", "parsed": {}, "id": "m2", "reasoning": "Hm.", "annotations": [], **more},
        {"role": "user", "content": "And?", "mood": "good"},
        {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "function": function, **more}], **details},
        {"role": "tool", "tool_call_id": "a1", "content": "noon", "is_error": False},
    ]
    answered(client, messages=messages)
    assert worker.turns[0].request.chat.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "{}", "reasoning_content": "Hm."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "a1", "content": "noon"},
    ]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, ""),
        ({"city": "Zürich"}, '{"city": "Zürich"}'),
        ([{"celsius": 22}, 9], '[{"celsius": 22}, 9]'),
        (22.5, "22.5"),
        (True, "true"),
        ([{"type": "text", "text": "22 C"}, "9 C"], "22 C\n9 C"),
    ],
)
@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_result_that_is_no_text_is_shown_as_json(
    client: FlaskClient, worker: ScriptedWorker, role: str, content: object, shown: str
) -> None:
    sent = {"role": "assistant", "tool_calls": [CALLED]}
    answered(client, messages=[*HELLO, sent, {"role": role, "tool_call_id": "a1", "content": content}])
    assert worker.turns[0].request.chat.messages[-1]["content"] == shown


def test_what_was_said_in_an_earlier_answer_is_read_as_its_text(client: FlaskClient, worker: ScriptedWorker) -> None:
    audio: list[Any] = [{"id": "a1"}, {"id": "a2", "transcript": "Hi!"}, "x"]
    sent = [{"role": "assistant", "content": None, "audio": one} for one in audio]
    both = {"role": "assistant", "content": "Hello!", "audio": {"id": "a3", "transcript": "Hello!"}}
    answered(client, messages=[*HELLO, *sent, both, *HELLO])
    assert worker.turns[0].request.chat.messages[1:-1] == [
        {"role": "assistant", "content": text} for text in ("", "Hi!", "", "Hello!")
    ]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate"])
def test_calls_without_ids_and_their_results_belong_together(
    client: FlaskClient, worker: ScriptedWorker, path: str
) -> None:
    """Ollama's clients send them so."""
    calls = [{"function": {"name": name, "arguments": {"city": "Bern"}}} for name in ("weather", "time")]
    results = [
        {"role": "tool", "tool_name": "time", "content": "noon"},
        {"role": "tool", "tool_name": "weather", "content": "22 C"},
    ]
    messages = [*HELLO, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    assert client.post(path, json={"messages": messages}).status_code == 200
    _, called, *sent = worker.turns[0].request.chat.messages
    arguments = '{"city": "Bern"}'
    assert called["tool_calls"] == [
        {"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": arguments}},
        {"id": "call00001", "type": "function", "function": {"name": "time", "arguments": arguments}},
    ]
    assert sent == [
        {"role": "tool", "name": "time", "tool_call_id": "call00001", "content": "noon"},
        {"role": "tool", "name": "weather", "tool_call_id": "call00000", "content": "22 C"},
    ]


@pytest.mark.parametrize(
    "sent", [{}, {"content": None, "reasoning_content": "Hm."}, {"content": None, "tool_calls": []}]
)
def test_an_answer_that_was_cut_off_before_its_first_word_may_be_sent_back(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any]
) -> None:
    answered(client, messages=[*HELLO, {"role": "assistant", **sent}, *HELLO])
    assert worker.turns[0].request.chat.messages[1]["content"] == ""


@pytest.mark.parametrize("arguments", [{}, {"arguments": None}, {"arguments": ""}])
def test_a_call_without_arguments_may_be_sent_back_without_them(
    client: FlaskClient, worker: ScriptedWorker, arguments: dict[str, Any]
) -> None:
    call = {"id": "a1", "type": "function", "function": {"name": "time", **arguments}}
    answered(client, messages=[*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO])
    (rendered,) = worker.turns[0].request.chat.messages[1]["tool_calls"]
    assert rendered["function"] == {"name": "time", "arguments": "{}"}


def test_a_call_of_a_custom_tool_in_a_history_is_a_call_with_one_argument(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    call = {"id": "a1", "type": "custom", "custom": {"name": "patch", "input": "ü"}}
    answered(client, messages=[*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, *HELLO])
    (rendered,) = worker.turns[0].request.chat.messages[1]["tool_calls"]
    assert rendered == {"id": "a1", "type": "function", "function": {"name": "patch", "arguments": '{"input": "ü"}'}}


def test_parts_of_calls_are_ignored_in_a_history_and_texts_are_parts(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    parts = ["a", {"type": "tool_use", "name": "f"}, {"type": "output_text", "text": "b", "annotations": []}]
    answered(client, messages=[*HELLO, {"role": "assistant", "content": parts}, *HELLO])
    assert worker.turns[0].request.chat.messages[1] == {"role": "assistant", "content": "a\nb"}


def test_parts_of_thoughts_are_ignored_in_a_history(client: FlaskClient, worker: ScriptedWorker) -> None:
    parts = [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "Yes."}]
    answered(client, messages=[*HELLO, {"role": "assistant", "content": parts}, *HELLO])
    assert worker.turns[0].request.chat.messages[1] == {"role": "assistant", "content": "Yes."}


def test_arguments_may_be_the_object_itself(client: FlaskClient, worker: ScriptedWorker) -> None:
    call = {**CALLED, "function": {"name": "weather", "arguments": {"city": "Köln"}}}
    answered(client, messages=[*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO])
    (sent,) = worker.turns[0].request.chat.messages[1]["tool_calls"]
    assert sent["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}


def test_unknown_members_of_tools_are_ignored(client: FlaskClient, worker: ScriptedWorker) -> None:
    tool = {"type": "function", "cache_control": {}, "function": {"name": "time", "defer_loading": True}}
    answered(client, tools=[tool])
    assert worker.turns[0].request.chat.tools == [TIME]


def test_without_a_model_the_served_one_is_meant_and_another_is_not_found(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    assert answered(client, model=None)["model"] == MODEL
    response = chat(client, model="gpt-4")
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
    assert response.get_json()["error"]["param"] == "model"


def test_a_stream_brings_chunks_and_done(client: FlaskClient, worker: ScriptedWorker) -> None:
    response = chat(client, stream=True)
    streamed = chunks(response)
    assert response.mimetype == "text/event-stream"
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in streamed} == {
        (f"chatcmpl-{worker.turns[0].claim.job_id}", "chat.completion.chunk", MODEL)
    }
    assert [chunk["choices"][0]["delta"] for chunk in streamed] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {"content": " world"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in streamed] == [None, None, None, "stop"]
    assert all("usage" not in chunk for chunk in streamed)


def test_the_last_chunk_has_the_usage_when_requested(client: FlaskClient, worker: ScriptedWorker) -> None:
    *others, last = chunks(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in others)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_each_choice_is_a_job_with_a_seed_of_its_own(client: FlaskClient, worker: ScriptedWorker) -> None:
    answer = answered(client, n=3, seed=2**32 - 1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {turn.request.params["seed"] for turn in worker.turns} == {2**32 - 1, 0, 1}
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 6,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_a_stream_of_several_choices_distinguishes_them_by_their_index(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    streamed = chunks(chat(client, n=3, stream=True))
    for index in range(3):
        mine = [chunk["choices"][0] for chunk in streamed if chunk["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "Hello world"
        assert mine[-1]["finish_reason"] == "stop"


def test_logprobs_are_returned_whole_and_in_chunks(client: FlaskClient, worker: ScriptedWorker) -> None:
    entry = TokenLogprob(token="Hi", logprob=-0.5, top={"Hi": -0.5, "He": -1.5})
    worker.play = play_of(lambda turn: turn.delta("Hi", entry), Turn.succeed)
    whole = answered(client, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert params(worker)["logprobs"] == 2
    assert [token["token"] for token in whole["content"][0]["top_logprobs"]] == ["Hi", "He"]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks(chat(client, logprobs=True, stream=True))]
    assert params(worker)["logprobs"] == 0
    assert [logprobs["content"][0]["bytes"] for logprobs in streamed if logprobs] == [[72, 105]]


@pytest.mark.parametrize(
    ("format", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "integer"}}},
            {"type": "integer"},
        ),
    ],
)
def test_a_response_format_becomes_a_schema(
    client: FlaskClient, worker: ScriptedWorker, format: Any, schema: Any
) -> None:
    answered(client, response_format=format)
    assert params(worker).get("json_schema") == schema


@pytest.mark.parametrize(
    "sent",
    [
        {"guided_json": {"type": "object", "properties": {"a": {}}}},
        {"structured_outputs": {"json": {"type": "object", "properties": {"a": {}}}}},
    ],
)
def test_vllms_names_of_a_response_format_mean_the_same(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any]
) -> None:
    (name,) = sent
    answered(client, **sent)
    assert params(worker)["json_schema"] == {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    answered(client, **sent, tools=[TIME])
    assert "anyOf" in params(worker)["json_schema"]
    assert refused(client, **sent, response_format={"type": "json_object"})[1] == name
    worker.play = lambda turn: turn.fail("invalid_grammar", "no", {"params.json_schema": ["no"]})
    assert refused(client, **sent)[:2] == (400, name)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ({"guided_regex": "[0-9]"}, "regex"),
        ({"guided_choice": ["a", "b"]}, "grammar"),
        ({"structured_outputs": {"regex": "[0-9]"}}, "regex"),
    ],
)
def test_other_constraints_of_vllm_reach_the_worker_and_are_named_as_they_were_sent(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any], kind: str
) -> None:
    (name,) = sent
    answered(client, **sent)
    assert kind in params(worker)
    assert refused(client, **sent, tools=[TIME], tool_choice="required")[1] == name
    worker.play = lambda turn: turn.fail("invalid_grammar", "no", {f"params.{kind}": ["no"]})
    assert refused(client, **sent)[:2] == (400, name)


def test_a_call_in_the_text_becomes_a_tool_call(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of(
        "Wait.\n<tool_", 'call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>', Turn.succeed
    )
    choice = answered(client, tools=[WEATHER])["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Wait.")
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Ulm"}'}
    assert (len(call["id"]), call["type"]) == (9, "function")
    assert worker.turns[0].request.chat.tools[0]["function"]["name"] == "weather"
    assert "json_schema" not in params(worker)


@pytest.mark.parametrize(
    ("sent", "continues", "adds_prompt"),
    [
        ({}, None, None),
        ({"continue_final_message": True}, True, None),
        ({"continue_final_message": True, "add_generation_prompt": False}, True, False),
        ({"continue_final_message": False, "add_generation_prompt": True}, False, True),
        ({"add_generation_prompt": False}, None, False),
    ],
)
def test_where_the_prompt_ends_is_the_clients_choice(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any], continues: bool | None, adds_prompt: bool | None
) -> None:
    answered(client, **sent)
    made = worker.turns[-1].request.chat
    assert (made.continues, made.add_generation_prompt) == (continues, adds_prompt)


def test_a_message_is_continued_or_a_new_one_begins_but_not_both(client: FlaskClient) -> None:
    status, name, message = refused(client, continue_final_message=True, add_generation_prompt=True)
    assert (status, name) == (400, "continue_final_message")
    assert "add_generation_prompt begins a new message" in message


def test_the_prefix_of_the_last_message_reaches_the_template(client: FlaskClient, worker: ScriptedWorker) -> None:
    question = {"role": "user", "content": "Capital?", "prefix": True}
    for prefix, kept in ((True, {"prefix": True}), (False, {}), (None, {})):
        begun = {"role": "assistant", "content": "It is ", "prefix": prefix}
        answered(client, messages=[question, begun])
        assert worker.turns[-1].request.chat.messages == [
            {"role": "user", "content": "Capital?"},
            {"role": "assistant", "content": "It is ", **kept},
        ]


def test_thoughts_are_returned_beside_the_answer(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("<think>", "Paris or", " Rome?\n</thi", "nk>\n\n", "Paris", ".", Turn.succeed)
    message = answered(client)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Paris or Rome?", "Paris.")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(chat(client, stream=True))]
    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["Paris or", " Rome?"]
    assert "".join(delta.get("content", "") for delta in deltas) == "Paris."


def test_a_value_in_xml_has_the_type_of_its_tools_schema(client: FlaskClient, worker: ScriptedWorker) -> None:
    written = "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n</function>\n</tool_call>"
    worker.play = play_of(written, Turn.succeed)
    (call,) = answered(client, tools=[WEATHER])["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "12"}


def test_calls_are_streamed_with_their_index(client: FlaskClient, worker: ScriptedWorker) -> None:
    call = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    worker.play = play_of(call, call, Turn.succeed)
    choices = [chunk["choices"][0] for chunk in chunks(chat(client, tools=[TIME], stream=True))]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]) for call in calls] == [
        (0, {"name": "time", "arguments": ""}),
        (0, {"arguments": "{}"}),
        (1, {"name": "time", "arguments": ""}),
        (1, {"arguments": "{}"}),
    ]
    assert len({call["id"] for call in calls if "id" in call}) == 2
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_a_required_call_is_a_list_by_grammar(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of('[{"name": "time", "arguments": {}}]', Turn.succeed)
    choice = answered(client, tools=[WEATHER, TIME], tool_choice="required")["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "time", "arguments": "{}"}
    assert choice["message"]["content"] is None
    schema = params(worker)["json_schema"]
    assert (schema["type"], schema["minItems"], list(schema["$defs"])) == ("array", 1, ["tool0", "tool1"])


def test_of_a_named_function_only_the_arguments_are_written(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of('{"city":', ' "Ulm"}', Turn.succeed)
    named = {"type": "function", "function": {"name": "weather"}}
    choice = answered(client, tools=[TIME, WEATHER], tool_choice=named)["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Ulm"}'}
    assert params(worker)["json_schema"]["required"] == ["city"]
    assert [tool["function"]["name"] for tool in worker.turns[0].request.chat.tools] == ["weather"]
    streamed = chunks(chat(client, tools=[WEATHER], tool_choice=named, stream=True))
    deltas = [call["function"] for c in streamed for call in c["choices"][0]["delta"].get("tool_calls", [])]
    assert "".join(delta["arguments"] for delta in deltas) == '{"city": "Ulm"}'


NAMED = {"type": "function", "function": {"name": "weather"}}
ULM = '{"name": "weather", "arguments": {"city": "Ulm"}}'


@pytest.mark.parametrize(
    ("choice", "text", "content", "calls"),
    [
        ("required", f"[{ULM}, {ULM}, {ULM[:30]}", None, 2),
        ("required", ULM[:20], "", 0),
        ("auto", f"Wait.\n<tool_call>\n{ULM}\n</tool_call>\n<tool_call>\n{ULM[:-1]}", "Wait.", 1),
        ("auto", "Wait. <tool_", "Wait.", 0),
        (NAMED, '{"city":', "", 0),
    ],
)
def test_of_an_output_that_is_cut_off_the_finished_calls_are_returned_and_no_markup(
    client: FlaskClient, worker: ScriptedWorker, choice: Any, text: str, content: str | None, calls: int
) -> None:
    worker.play = play_of(*text, lambda turn: turn.succeed(reason=FinishReason.LENGTH))
    whole = answered(client, tools=[WEATHER], tool_choice=choice)["choices"][0]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("length", content)
    assert [call["function"]["arguments"] for call in whole["message"].get("tool_calls", [])] == [
        '{"city": "Ulm"}'
    ] * calls
    streamed = [chunk["choices"][0] for chunk in chunks(chat(client, tools=[WEATHER], tool_choice=choice, stream=True))]
    assert "".join(choice["delta"].get("content") or "" for choice in streamed) == (content or "")
    assert sum("id" in call for choice in streamed for call in choice["delta"].get("tool_calls", [])) == calls
    assert streamed[-1]["finish_reason"] == "length"


def test_a_call_is_streamed_when_it_is_complete(client: FlaskClient, worker: ScriptedWorker) -> None:
    gate = threading.Event()
    worker.play = play_of(f"[{ULM}", gate, ", ", ULM, "]", Turn.succeed)
    body: dict[str, Any] = {"model": MODEL, "messages": HELLO, "tools": [WEATHER], "tool_choice": "required"}
    response = client.post("/v1/chat/completions", json={**body, "stream": True}, buffered=False)
    received = b""
    for part in response.iter_encoded():
        received += part
        if b"Ulm" in received:
            gate.set()
    assert received.count(b"Ulm") == 2 and gate.is_set()


def test_a_call_may_nest_its_arguments_as_deep_as_it_likes(client: FlaskClient, worker: ScriptedWorker) -> None:
    arguments = '{"city": ' + "[" * 20_000 + "]" * 20_000 + "}"
    worker.play = play_of(f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>', Turn.succeed)
    (call,) = answered(client, tools=[WEATHER])["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == arguments
    sent = {"role": "assistant", "content": None, "tool_calls": [call]}
    answered(client, messages=[*HELLO, sent, {"role": "tool", "tool_call_id": call["id"], "content": "warm"}])
    (received,) = worker.turns[-1].request.chat.messages[1]["tool_calls"]
    assert received["function"]["arguments"] == arguments


@pytest.mark.parametrize("choice", ["any", {"type": "any"}, {"type": "required"}, {"type": "function", "name": "time"}])
def test_a_call_is_required_in_the_words_of_other_servers_too(
    client: FlaskClient, worker: ScriptedWorker, choice: Any
) -> None:
    text = "{}" if isinstance(choice, dict) and "name" in choice else '[{"name": "time", "arguments": {}}]'
    worker.play = play_of(text, Turn.succeed)
    message = answered(client, tools=[TIME], tool_choice=choice)["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["time"]
    assert worker.turns[0].request.params["json_schema"]


def test_a_choice_by_its_type_may_leave_it_to_the_model(client: FlaskClient, worker: ScriptedWorker) -> None:
    answered(client, tools=[TIME], tool_choice={"type": "auto"})
    answered(client, tools=[TIME], tool_choice={"type": "none"})
    assert [len(turn.request.chat.tools) for turn in worker.turns] == [1, 0]


@pytest.mark.parametrize("tool", [{"type": "function", "name": "time"}, {"function": {"name": "time"}}])
def test_a_function_may_stand_beside_its_type_or_without_one(
    client: FlaskClient, worker: ScriptedWorker, tool: dict[str, Any]
) -> None:
    answered(client, tools=[tool])
    (shown,) = worker.turns[0].request.chat.tools
    assert shown["type"] == "function" and shown["function"]["name"] == "time"


def test_with_tool_choice_none_the_text_is_a_text(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of('{"name": "time", "arguments": {}}', Turn.succeed)
    message = answered(client, tools=[TIME], tool_choice="none")["choices"][0]["message"]
    assert message == {"role": "assistant", "content": '{"name": "time", "arguments": {}}', "refusal": None}
    assert worker.turns[0].request.chat.tools == []


def test_only_allowed_tools_reach_the_model(client: FlaskClient, worker: ScriptedWorker) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]}
    worker.play = play_of('[{"name": "time", "arguments": {}}]', Turn.succeed)
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    answered(client, tools=[WEATHER, TIME], tool_choice=choice)
    assert [tool["function"]["name"] for tool in worker.turns[0].request.chat.tools] == ["time"]


def test_a_format_and_tools_go_together(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of('{"name": "time", "arguments": {}}', Turn.succeed)
    message = answered(client, tools=[TIME], response_format={"type": "json_object"})["choices"][0]["message"]
    assert message["content"] == '{"name": "time", "arguments": {}}'
    assert "anyOf" in params(worker)["json_schema"]


def test_functions_of_the_time_before_tools_are_answered_in_kind(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of('<tool_call>{"name": "time", "arguments": {}}</tool_call>', Turn.succeed)
    choice = answered(client, functions=[TIME["function"]], function_call="auto")["choices"][0]
    assert choice["message"]["function_call"] == {"name": "time", "arguments": "{}"}
    assert choice["finish_reason"] == "function_call"
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "time", "arguments": "{}"}},
        {"role": "function", "name": "time", "content": "noon"},
    ]
    answered(client, messages=messages)
    sent = worker.turns[-1].request.chat.messages
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] and sent[2]["role"] == "tool"


@pytest.mark.parametrize(
    "body",
    [
        {"function_call": "none"},
        {"function_call": "auto"},
        {"function_call": "none", "tool_choice": "none"},
        {"functions": [], "function_call": "none", "tools": []},
        {"functions": [], "tool_choice": "auto", "tools": [TIME]},
        {"tools": [], "functions": [TIME["function"]], "function_call": "auto"},
    ],
)
def test_an_empty_list_of_tools_and_a_choice_of_none_of_them_change_nothing(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any]
) -> None:
    answered(client, **body)
    offered = [TIME["function"], TIME]
    has_one = any(tool in offered for name in ("tools", "functions") for tool in body.get(name, ()))
    assert len(worker.turns[0].request.chat.tools) == has_one


def test_what_else_the_template_reads_is_passed_on(client: FlaskClient, worker: ScriptedWorker) -> None:
    answered(client, reasoning_effort="low", chat_template_kwargs={"enable_thinking": False})
    assert worker.turns[0].request.chat.variables == {"enable_thinking": False, "reasoning_effort": "low"}


def test_parameters_without_an_effect_are_ignored(client: FlaskClient, worker: ScriptedWorker) -> None:
    ignored: dict[str, Any] = {
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
        "modalities": ["text"],
    }
    answered(client, **ignored)
    assert params(worker) == {"max_tokens": 1_000_000, "repeat_penalty": 1.0}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": [{"type": "image"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALLED]}]}, "messages.0.tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"modalities": ["text", "audio"]}, "modalities.1"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        ({"response_format": {"type": "json_object"}, "grammar": "root ::= x"}, "grammar"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools.0.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": "sometimes"}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools.0.function.parameters.type",
        ),
        ({"tools": [TIME], "functions": [{"name": "f"}]}, "functions"),
        ({"tools": [TIME], "function_call": "auto"}, "function_call"),
        ({"tools": [TIME], "function_call": "none"}, "function_call"),
        ({"functions": [TIME["function"]], "tool_choice": "auto"}, "tool_choice"),
        ({"function_call": {"name": "time"}}, "function_call"),
        ({"tools": [TIME], "tool_choice": "required", "json_schema": {}}, "json_schema"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], param: str
) -> None:
    status, named, message = refused(client, **body)
    assert (status, named) == (400, param)
    assert param in message
    assert worker.turns == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "field", "status", "expected"),
    [
        ("prompt_too_long", "messages", 400, ("context_length_exceeded", "messages")),
        ("invalid_grammar", "params.json_schema", 400, ("invalid_grammar", "response_format")),
        ("grammar_too_costly", "params.json_schema", 400, ("grammar_too_costly", "response_format")),
        ("invalid_request", "params.logit_bias", 400, ("invalid_request", "logit_bias")),
        ("engine_error", "", 500, ("engine_error", None)),
    ],
)
def test_an_error_of_the_worker_uses_the_names_of_the_request(
    client: FlaskClient, worker: ScriptedWorker, stream: bool, code: str, field: str, status: int, expected: Any
) -> None:
    worker.play = lambda turn: turn.fail(code, "like this", {field: ["like this"]} if field else {})
    response = chat(client, stream=stream, response_format={"type": "json_object"})
    error = response.get_json()["error"]
    assert (response.status_code, (error["code"], error["param"])) == (status, expected)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({"num_predict": 5}, "num_predict"),
        ({"num_predict": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_an_error_of_the_worker_uses_the_name_that_the_client_has_sent(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, int], named: str
) -> None:
    worker.play = lambda turn: turn.fail("unsupported_parameter", "no", {"params.max_tokens": ["no"]})
    assert refused(client, **sent)[:2] == (400, named)


JSON_ANSWER = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("sent", "path", "named"),
    [
        (
            {"tools": [TIME, WEATHER], "tool_choice": "required"},
            "$defs.tool1.properties.city",
            "tools.weather.parameters",
        ),
        (
            {"tools": [TIME, WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            "properties.city",
            "tools.weather.parameters",
        ),
        ({"tools": [WEATHER], "guided_json": {}}, "$defs.tool0.properties.city", "tools.weather.parameters"),
        ({"tools": [WEATHER], "guided_json": {}}, "$defs.answer.properties.city", "guided_json"),
        ({"guided_json": {}}, "$defs.answer.properties.city", "guided_json.$defs.answer"),
        (
            {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}},
            "properties.city",
            "functions.weather.parameters",
        ),
    ],
)
def test_a_fault_in_a_schema_is_named_by_the_tool_and_its_path(
    client: FlaskClient, worker: ScriptedWorker, sent: dict[str, Any], path: str, named: str
) -> None:
    field = f"params.json_schema.{path}"
    worker.play = lambda turn: turn.fail("invalid_grammar", f"no at {field}: any", {field: ["any"]})
    status, param, message = refused(client, **sent)
    assert (status, param) == (400, f"{named}.properties.city")
    assert f"no at {named}.properties.city: any" in message


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens", "num_predict"])
@pytest.mark.parametrize("value", [-1, 10**12])
def test_a_maximum_beyond_the_context_or_minus_one_is_as_much_as_fits(
    client: FlaskClient, worker: ScriptedWorker, name: str, value: int
) -> None:
    answered(client, **{name: value}, seed=-1)
    assert params(worker) == {"max_tokens": 1_000_000, "repeat_penalty": 1.0}


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Hello", lambda turn: turn.fail("engine_error", "broken"))
    *_, last, end = chat(client, stream=True).get_data(as_text=True).split("\n\n")
    assert (json.loads(last.removeprefix("data: "))["error"]["message"], end) == ("broken", "")


@pytest.mark.parametrize("stream", [False, True])
def test_of_a_chat_that_is_not_stored_no_choice_can_be_read(
    client: FlaskClient, worker: ScriptedWorker, stream: bool
) -> None:
    assert "world" in chat(client, store=False, stream=stream, n=2).text
    assert len(worker.turns) == 2 and client.get("/jobs").get_json()["data"] == []
    answered(client, store=True)
    assert len(client.get("/jobs").get_json()["data"]) == 1


def test_when_one_choice_fails_the_others_are_canceled(client: FlaskClient, worker: ScriptedWorker) -> None:
    canceled = threading.Event()

    def play(turn: Turn) -> None:
        if turn is worker.turns[0]:
            while len(worker.turns) < 2:
                time.sleep(0.01)
            turn.fail("engine_error", "broken")
        else:
            turn.wait_for_cancel()
            canceled.set()

    worker.play = play
    assert chat(client, n=2).status_code == 500
    assert canceled.wait(scaled(5))


def test_a_client_that_leaves_a_stream_cancels_all_of_its_choices(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = play_of("Hello", Turn.wait_for_cancel)
    response = client.post("/v1/chat/completions", json={"messages": HELLO, "n": 2, "stream": True}, buffered=False)
    next(response.iter_encoded())
    response.close()
    listed = client.get("/jobs").get_json()["data"]
    jobs = [client.get(f"{job['urls']['self']}?wait=10").get_json() for job in listed]
    assert [job["status"] for job in jobs] == ["canceled"] * 2


def test_the_same_request_with_the_same_key_makes_no_second_jobs(client: FlaskClient, worker: ScriptedWorker) -> None:
    headers = {"Idempotency-Key": "once"}
    for stream in (False, True, False):
        body = {"messages": HELLO, "n": 2, "stream": stream}
        response = client.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 200
        assert "Hello" in response.text and "world" in response.text
    assert len(worker.turns) == 2


@pytest.mark.parametrize("n", [1, 2])
def test_a_canceled_job_is_not_tried_again_by_openais_clients(
    client: FlaskClient, worker: ScriptedWorker, n: int
) -> None:
    def play(turn: Turn) -> None:
        worker.store.cancel(turn.claim.job_id)
        turn.wait_for_cancel()

    worker.play = play
    response = chat(client, n=n)
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize(
    ("body", "param", "shown"),
    [
        ({}, "messages", "messages"),
        ({"tools": [TIME], "messages": [{"role": "user", "content": "x" * 200}]}, "messages", "messages and tools"),
        (
            {"tools": [WEATHER, {"type": "function", "function": {"name": "f", "description": "x" * 200}}]},
            "tools",
            "tools and messages",
        ),
        ({"functions": [{"name": "f", "description": "x" * 200}]}, "functions", "functions and messages"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "description": "x" * 200}}],
                "tool_choice": "none",
            },
            "messages",
            "messages",
        ),
    ],
)
def test_a_chat_that_is_too_long_is_told_what_its_prompt_is_made_of(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], param: str, shown: str
) -> None:
    detail = PromptTooLong.for_context("messages", tokens=600, context_tokens=512).detail
    worker.play = lambda turn: turn.fail("prompt_too_long", detail, {"messages": [detail]})
    error = chat(client, **body).get_json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert error["message"] == PromptTooLong.for_context(shown, tokens=600, context_tokens=512).detail


def test_another_error_about_messages_is_not_one_about_tools(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.fail("invalid_request", "messages: no", {"messages": ["no"]})
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 200}}
    error = chat(client, tools=[tool]).get_json()["error"]
    assert (error["param"], error["message"]) == ("messages", "messages: no")
