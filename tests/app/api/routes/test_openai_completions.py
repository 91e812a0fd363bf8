"""`/v1/completions` over a scripted worker."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.errors import PromptTooLong
from app.jobs.job import TokenLogprob
from tests.app.api.conftest import MODEL
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of


def answered(client: FlaskClient, **body: Any) -> Any:
    response = client.post("/v1/completions", json={"prompt": "Say", **body})
    assert response.status_code == 200, response.text
    return response.get_json()


def test_the_answer_is_a_text_completion(client: FlaskClient, worker: ScriptedWorker) -> None:
    answer = answered(client, model=MODEL)
    assert answer["id"] == f"cmpl-{worker.turns[0].claim.job_id}"
    assert (answer["object"], answer["model"], answer["usage"]["total_tokens"]) == ("text_completion", MODEL, 5)
    assert answer["choices"] == [{"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "stop"}]
    request = worker.turns[0].request
    assert (request.prompt, request.params) == ("Say", {"max_tokens": 16, "repeat_penalty": 1.0})


def test_each_answer_to_each_prompt_is_a_job_in_the_order_of_the_prompts(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    worker.play = lambda turn: play_of(turn.request.prompt or str(turn.request.prompt_tokens), Turn.succeed)(turn)
    answer = answered(client, prompt=["a", [1, 2]], n=2)
    assert [choice["text"] for choice in answer["choices"]] == ["a", "a", "(1, 2)", "(1, 2)"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (6, 4)


@pytest.mark.parametrize(
    ("prompt", "expected"), [([1, 2, 3], ("", (1, 2, 3))), (None, ("", None)), ("", ("", None)), (["x"], ("x", None))]
)
def test_a_prompt_is_a_text_or_token_ids_or_nothing(
    client: FlaskClient, worker: ScriptedWorker, prompt: Any, expected: Any
) -> None:
    answered(client, prompt=prompt)
    request = worker.turns[0].request
    assert (request.prompt, request.prompt_tokens) == expected


def test_a_stream_brings_the_text_of_all_choices(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = {"prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}
    events = client.post("/v1/completions", json=body).get_data(as_text=True).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    *chunks, last = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    for index in range(2):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == "Hello world"
        assert [choice["finish_reason"] for choice in mine] == [None, None, "stop"]
    assert last["usage"]["prompt_tokens"] == 6


def test_logprobs_are_parallel_lists(client: FlaskClient, worker: ScriptedWorker) -> None:
    entry = TokenLogprob(token="Hi", logprob=-0.5, top={"Hi": -0.5})
    worker.play = play_of(lambda turn: turn.delta("Hi", entry), Turn.succeed)
    assert answered(client, logprobs=1)["choices"][0]["logprobs"] == {
        "tokens": ["Hi"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"Hi": -0.5}],
        "text_offset": [0],
    }


def test_the_best_answers_are_those_with_the_likeliest_tokens(client: FlaskClient, worker: ScriptedWorker) -> None:
    def play(turn: Turn) -> None:
        number = worker.turns.index(turn)
        turn.delta(str(number), TokenLogprob(token=str(number), logprob=[-3.0, -1.0, -2.0][number]))
        turn.succeed()

    worker.play = play
    answer = answered(client, n=2, best_of=3)
    assert [choice["text"] for choice in answer["choices"]] == ["1", "2"]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["usage"]["completion_tokens"] == 3


def test_echo_suffix_and_no_tokens_at_all_reach_the_worker(client: FlaskClient, worker: ScriptedWorker) -> None:
    answered(client, echo=True, suffix="end", max_tokens=0)
    params = worker.turns[0].request.params
    assert (params["echo"], params["suffix"], params["max_tokens"]) == (True, "end", 0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": ["a", 1]}, "prompt.1"),
        ({"prompt": [-1]}, "prompt.0"),
        ({"prompt": [1, -1]}, "prompt.1"),
        ({"prompt": [1, 2**31]}, "prompt.1"),
        ({"prompt": [1, "a"]}, "prompt.1"),
        ({"prompt": [1, True]}, "prompt.1"),
        ({"prompt": [[1], [2, -1]]}, "prompt.1.1"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], param: str
) -> None:
    response = client.post("/v1/completions", json={"prompt": "Say", **body})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    assert worker.turns == []


@pytest.mark.parametrize("prompt", [[-1], [[1], [-1]], [1.5]])
def test_what_is_no_token_id_is_answered_with_what_is_one(client: FlaskClient, prompt: Any) -> None:
    message = client.post("/v1/completions", json={"prompt": prompt}).get_json()["error"]["message"]
    assert "Must be a token id, a whole number from 0 to" in message


def test_a_response_format_is_followed_and_excludes_other_constraints(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}
    answered(client, response_format=format)
    assert worker.turns[0].request.params["json_schema"] == {"type": "integer"}
    answer = client.post("/v1/completions", json={"response_format": format, "guided_regex": "x"})
    assert answer.get_json()["error"]["param"] == "guided_regex"
    worker.play = lambda turn: turn.fail("invalid_grammar", "no", {"params.json_schema": ["no"]})
    answer = client.post("/v1/completions", json={"response_format": format})
    assert answer.get_json()["error"]["param"] == "response_format"


def too_long(field: str) -> PromptTooLong:
    return PromptTooLong.for_context(field, tokens=600, context_tokens=512)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "n", "param"),
    [
        ("long", 1, "prompt"),
        (["long"], 1, "prompt.0"),
        (["a", "long"], 1, "prompt.1"),
        (["a", "b", "long"], 2, "prompt.2"),
    ],
)
def test_an_error_about_a_prompt_says_which_it_is(
    client: FlaskClient, worker: ScriptedWorker, prompt: Any, n: int, param: str, stream: bool
) -> None:
    def play(turn: Turn) -> None:
        if turn.request.prompt == "long":
            turn.fail("prompt_too_long", too_long("prompt").detail, {"prompt": [too_long("prompt").detail]})
        else:
            turn.delta("fine")
            turn.succeed()

    worker.play = play
    response = client.post("/v1/completions", json={"prompt": prompt, "n": n, "stream": stream})
    text = response.text
    error = json.loads(text[text.rindex('{"error"') :])["error"]
    assert (error["code"], error["param"], error["message"]) == (
        "context_length_exceeded",
        param,
        too_long(param).detail,
    )
