"""The openai family against a real HTTP server: what is forwarded, and how an upstream server's faults are handled."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import ModelUnavailable
from app.jobs.events import FROM_START, Delta, read_events, read_published
from app.jobs.job import ANONYMOUS, FinishReason, Job, JobRequest, Kind, Status, TokenLogprob, Usage
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.lost_worker import lose_worker
from tests.principals import ME
from tests.waiting import scaled, until
from tests.workers.batching.loop_host import Host
from tests.workers.engines.remote.conftest import API_KEY, JobClient, config_for
from tests.workers.engines.remote.upstream_server import (
    MODEL,
    SECRET,
    Server,
    chat,
    chunks,
    hangs,
    json_answer,
    refuses,
    text,
)
from workers.engines.remote.runner import RemoteRunner
from workers.engines.runner import RunnerJob
from workers.worker import Worker

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0}


def text_of(job: Job) -> str:
    assert job.output is not None, job.error
    return job.output.text


def error_of(job: Job) -> tuple[str, str]:
    assert job.error is not None, job.output
    return job.error.code, job.error.message


def test_a_prompt_becomes_a_completion_with_its_text_usage_and_reason(client: JobClient, server: Server) -> None:
    server.answers.append(text("Par", "is", reason="length"))
    job = client.run("The capital is", params={"max_tokens": 2, "top_p": 0.5, "stop": ["."]})
    assert (job.status, text_of(job)) == (Status.SUCCEEDED, "Paris")
    assert job.usage == Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=2)
    assert job.output is not None and job.output.finish_reason is FinishReason.LENGTH
    last_request = server.requests[-1]
    assert (last_request.path, last_request.headers["Authorization"]) == ("/v1/completions", f"Bearer {API_KEY}")
    assert last_request.body == {
        "model": MODEL,
        "prompt": "The capital is",
        "max_tokens": 2,
        "top_p": 0.5,
        "stop": ["."],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_the_upstream_server_has_cached_of_others_is_not_shown(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    client = JobClient(make_worker(), store, owner="key-1")
    server.answers.append(text("Paris"))
    assert client.run().usage == Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=0)


def test_a_salt_separates_the_prefix_caches_of_owners(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    worker, salts = make_worker(cache_salt_name="cache_salt"), []
    for owner in ("key-1", "key-1", "key-2", ANONYMOUS):
        server.answers.append(text("Paris"))
        job = JobClient(worker, store, owner).run()
        assert job.usage is not None and job.usage.cached_tokens == 2
        salts.append(server.bodies[-1].get("cache_salt"))
    assert salts[0] == salts[1] != salts[2] and "key-1" not in salts[0]
    assert salts[3] is None, "without keys there is nothing to separate"


def test_a_salt_of_the_request_goes_upstream_derived_or_is_refused_where_it_would_be_void(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    salted = make_worker(cache_salt_name="cache_salt")
    for owner, salt in (("key-1", "mine"), ("key-1", ""), ("key-2", "mine"), (ANONYMOUS, "mine")):
        server.answers.append(text("Paris"))
        JobClient(salted, store, owner).run(cache_salt=salt)
    salts = [body["cache_salt"] for body in server.bodies]
    assert len(set(salts)) == 4 and "mine" not in "".join(salts)
    job = JobClient(make_worker("worker-2"), store).run(cache_salt="mine")
    assert error_of(job)[0] == "unsupported_parameter" and "model_params.cache_salt_name" in error_of(job)[1]
    assert len(server.bodies) == 4, "the prompt has not gone to a server that shares it"


def test_where_the_prompt_ends_is_forwarded(client: JobClient, server: Server) -> None:
    server.answers.append(chat("Hi"))
    begun = [*HELLO, {"role": "assistant", "content": "We", "prefix": True}]
    client.run(messages=begun, chat={"continues": True, "add_generation_prompt": False}, params={"max_tokens": 9})
    body = server.bodies[-1]
    assert body["messages"] == begun
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_the_pieces_are_counted_where_the_server_reports_no_usage(client: JobClient, server: Server) -> None:
    server.answers.append(text("a", "b", "c", usage=None))
    assert client.run().usage == Usage(completion_tokens=3)


@pytest.mark.parametrize("usage", [(-5, 7), (5, -1), (10**30, 7), (5, 2**31)])
def test_the_pieces_are_counted_where_the_reported_usage_cannot_be_true(
    client: JobClient, server: Server, usage: tuple[int, int]
) -> None:
    server.answers.append(text("a", "b", "c", usage=usage))
    assert client.run().usage == Usage(completion_tokens=3)


@pytest.mark.parametrize("tokens", [-9, 10**30])
def test_texts_whose_reported_tokens_cannot_be_true_count_none(client: JobClient, server: Server, tokens: int) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [3.0, 4.0]}]
    server.answers.append(json_answer({"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}))
    job = client.run(kind=Kind.EMBED, texts=("a",))
    assert (job.status, job.usage) == (Status.SUCCEEDED, Usage())


def test_a_chat_is_forwarded_unchanged(client: JobClient, server: Server) -> None:
    server.answers.append(chat("Hi", " there"))
    options = {"variables": {"reasoning_effort": "low", "enable_thinking": False}}
    job = client.run(messages=HELLO, chat=options, params={"max_tokens": 1_000_000, "repeat_penalty": 1.0})
    assert text_of(job) == "Hi there"
    assert server.requests[-1].path == "/v1/chat/completions"
    assert server.bodies == [
        {
            "model": MODEL,
            "messages": HELLO,
            "reasoning_effort": "low",
            "chat_template_kwargs": {"enable_thinking": False},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_prompts_become_chats_where_that_is_configured(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    client = JobClient(make_worker(prompts_as="chat", param_names={"max_tokens": "max_completion_tokens"}), store)
    server.answers.append(chat("Hi"))
    assert text_of(client.run("Hello")) == "Hi"
    assert server.bodies[0]["messages"] == HELLO
    assert server.bodies[0]["max_completion_tokens"] == 128 and "max_tokens" not in server.bodies[0]
    refused = client.run(prompt_tokens=(1, 2))
    assert refused.error is not None and list(refused.error.errors) == ["prompt"]


def test_a_text_comes_piece_by_piece(client: JobClient, server: Server, redis_client: RedisClient) -> None:
    server.answers.append(text("a", "bé", "c"))
    job_id = client.begin(stream=True)
    client.wait_for(job_id)
    events = read_events(redis_client, [(job_id, FROM_START)])[0]
    assert "".join(entry.event.text for entry in events if isinstance(entry.event, Delta)) == "abéc"


def test_log_probabilities_are_those_of_the_upstream_server(client: JobClient, server: Server) -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{"a": -0.5}, {"c": -0.1}]}
    whole = {"index": 0, "text": "ab", "logprobs": logprobs, "finish_reason": "stop"}
    server.answers.append(chunks({"choices": [whole]}))
    job = client.run(params={"logprobs": 1})
    assert job.output is not None and job.output.logprobs == [
        TokenLogprob(token="a", logprob=-0.5, top={"a": -0.5}),
        TokenLogprob(token="b", logprob=-1.0, top={"c": -0.1}),
    ]
    assert (text_of(job), server.bodies[0]["logprobs"]) == ("ab", 1)

    rival = {"token": "\\xf0", "bytes": [240], "logprob": -2.0}
    entry = {"token": "H", "bytes": [72], "logprob": -0.25, "top_logprobs": [rival]}
    choice = {"index": 0, "delta": {"content": "H"}, "logprobs": {"content": [entry]}, "finish_reason": "stop"}
    server.answers.append(chunks({"choices": [choice]}))
    job = client.run(messages=HELLO, params={"logprobs": 1})
    assert job.output is not None
    assert job.output.logprobs == [TokenLogprob(token="H", logprob=-0.25, top={"bytes:\\xf0": -2.0})]
    assert (server.bodies[1]["logprobs"], server.bodies[1]["top_logprobs"]) == (True, 1)


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city"'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def more(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"name": name, "arguments": arguments}}]}


def test_tool_calls_become_text_that_the_api_can_parse(client: JobClient, server: Server) -> None:
    server.answers.append(chat({"tool_calls": [CALL]}, more(0, ': "Rome"}'), more(1, "", "now"), reason="tool_calls"))
    calls = {"tool_choice": "required", "parallel_tool_calls": False, "schema": None}
    job = client.run(messages=HELLO, chat={"tools": TOOLS, "calls": calls}, params={"json_schema": {"type": "array"}})
    assert text_of(job) == (
        '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
        '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    )
    body = server.bodies[0]
    assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == (TOOLS, "required", False)
    assert "response_format" not in body


def test_the_call_of_a_named_function_is_a_call_like_others(client: JobClient, server: Server) -> None:
    server.answers.append(chat({"tool_calls": [CALL]}, more(0, ': "Rome"}'), reason="tool_calls"))
    named = {"type": "function", "function": {"name": "weather"}}
    calls = {"tool_choice": named, "parallel_tool_calls": True, "schema": None}
    text = text_of(client.run(messages=HELLO, chat={"tools": TOOLS, "calls": calls}))
    assert text == '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    assert server.bodies[0]["tool_choice"] == named


@pytest.mark.parametrize(("rest", "end"), [('": {"a": 1', ""), ('": "Rome"}', "}</tool_call>"), ("", "")])
def test_a_call_that_was_cut_off_does_not_end(client: JobClient, server: Server, rest: str, end: str) -> None:
    begun = '{"city' if rest else ""
    call = {**CALL, "function": {"name": "weather", "arguments": begun}}
    server.answers.append(chat({"tool_calls": [call]}, more(0, rest), reason="length"))
    job = client.run(messages=HELLO, chat={"tools": TOOLS, "calls": {"tool_choice": "auto"}})
    assert text_of(job) == f'<tool_call>{{"name": "weather", "arguments": {begun}{rest}{end}'
    assert job.output is not None and job.output.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(("required", "strict"), [(["a"], True), ([], False)])
def test_a_schema_is_forwarded_as_strict_where_openais_servers_accept_that(
    client: JobClient, server: Server, required: list[str], strict: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {}}, "required": required, "additionalProperties": False}
    server.answers.append(chat("{}"))
    client.run(messages=HELLO, params={"json_schema": schema})
    response_format = server.bodies[0]["response_format"]
    assert response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }


@pytest.mark.parametrize("name", ["top_k", "grammar", "num_beams", "min_length"])
def test_a_parameter_that_openais_api_lacks_is_refused_by_name(client: JobClient, server: Server, name: str) -> None:
    job = client.run(params={name: 3})
    assert job.error is not None and job.error.code == "unsupported_parameter"
    assert list(job.error.errors) == [f"params.{name}"] and "param_names" in job.error.errors[f"params.{name}"][0]
    assert server.bodies == []


def test_a_parameter_that_the_configuration_names_is_forwarded(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    client = JobClient(make_worker(param_names={"top_k": "top_k", "repeat_penalty": "repetition_penalty"}), store)
    server.answers.append(text("a"))
    client.run(params={"top_k": 3, "repeat_penalty": 1.2})
    assert (server.bodies[0]["top_k"], server.bodies[0]["repetition_penalty"]) == (3, 1.2)


def test_embeddings_are_normalised_and_in_their_order(client: JobClient, server: Server, store: JobStore) -> None:
    data = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]
    server.answers += [refuses(503), json_answer({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}})]
    job = client.run(kind=Kind.EMBED, prompt="", texts=("a", "b"))
    assert job.output is not None and job.output.embeddings == [[0.6, 0.8], [0.0, 1.0]]
    assert job.usage == Usage(prompt_tokens=9)
    assert server.bodies[-1] == {"model": MODEL, "input": ["a", "b"], "encoding_format": "float"}


def test_one_slow_embedding_delays_no_other(client: JobClient, server: Server) -> None:
    server.answers.append(hangs())
    slow = client.begin(kind=Kind.EMBED, prompt="", texts=("slow",))
    until(lambda: server.bodies)
    server.answers.append(json_answer({"data": [{"index": 0, "embedding": [1.0]}]}))
    assert client.run(kind=Kind.EMBED, prompt="", texts=("quick",)).status is Status.SUCCEEDED
    assert client.store.read(slow).status is Status.PROCESSING
    client.cancel(slow)


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_for_as_long_as_the_server_asks(client: JobClient, server: Server) -> None:
    server.answers += [refuses(429, Retry_After="1"), text("done")]
    started = time.monotonic()
    job = client.run()
    assert (text_of(job), len(server.bodies)) == ("done", 2)
    assert time.monotonic() - started >= 1.0


def test_a_rate_limit_of_one_job_delays_all_jobs(client: JobClient, server: Server) -> None:
    server.answers += [refuses(429, Retry_After="1"), text("a"), text("b")]
    first = client.begin()
    until(lambda: server.bodies)
    time.sleep(0.1)
    started = time.monotonic()
    second = client.begin()
    assert {text_of(client.wait_for(job_id)) for job_id in (first, second)} == {"a", "b"}
    assert time.monotonic() - started > 0.7


def test_a_rate_limit_beyond_the_jobs_time_fails_it_at_once(client: JobClient, server: Server) -> None:
    server.answers += [refuses(429, Retry_After="3600")]
    started = time.monotonic()
    job = client.run(timeout_seconds=20.0)
    assert error_of(job)[0] == "upstream_busy"
    assert time.monotonic() - started < scaled(5)
    assert error_of(client.run(timeout_seconds=20.0))[0] == "upstream_busy", "and the next one, without another request"
    assert len(server.bodies) == 1


def test_failures_are_tried_again_a_few_times(client: JobClient, server: Server) -> None:
    server.answers += [refuses(500), refuses(502), text("done")]
    assert text_of(client.run()) == "done"
    server.answers += [refuses(500)] * 4
    assert error_of(client.run())[0] == "upstream_error"
    assert not server.answers


@pytest.mark.parametrize(
    ("status", "code", "expected", "cure"),
    [
        (401, "invalid_api_key", "upstream_error", "setup_params.api_key"),
        (403, "x", "upstream_error", "setup_params.api_key"),
        (404, "model_not_found", "upstream_error", "setup_params.model"),
        (429, "insufficient_quota", "upstream_error", "quota"),
        (400, "context_length_exceeded", "prompt_too_long", "shorten"),
        (400, "unknown_parameter", "invalid_request", "parameter"),
        (422, "x", "invalid_request", "parameter"),
        (418, "x", "upstream_error", "418"),
    ],
)
def test_an_error_that_waiting_does_not_cure_fails_at_once_with_our_own_message(
    client: JobClient,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    expected: str,
    cure: str,
) -> None:
    server.answers.append(refuses(status, code))
    with caplog.at_level(logging.DEBUG, logger="workers"):
        error_code, message = error_of(client.run())
    assert (error_code, len(server.bodies)) == (expected, 1)
    assert cure in message and "\n" not in message
    for leaked in (SECRET, API_KEY):
        assert leaked not in message and leaked not in caplog.text


def test_a_completion_that_breaks_off_continues_after_its_text(client: JobClient, server: Server) -> None:
    server.answers += [text("a", "b", reason=None), text("c", usage=(9, 1))]
    job = client.run("prompt ", params={"max_tokens": 10})
    assert text_of(job) == "abc"
    assert (server.bodies[1]["prompt"], server.bodies[1]["max_tokens"]) == ("prompt ab", 8)
    assert job.usage == Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)


def test_a_completion_that_breaks_off_at_its_last_token_is_complete(client: JobClient, server: Server) -> None:
    server.answers += [text("a", "b", reason=None)]
    job = client.run(params={"max_tokens": 2})
    assert job.output is not None and (text_of(job), job.output.finish_reason) == ("ab", FinishReason.LENGTH)


def test_a_chat_that_breaks_off_fails_with_what_it_has(client: JobClient, server: Server) -> None:
    server.answers += [chat("Hel", reason=None)]
    job = client.run(messages=HELLO)
    assert (job.status, text_of(job), error_of(job)[0]) == (Status.FAILED, "Hel", "upstream_error")
    assert len(server.bodies) == 1


def test_a_chat_that_breaks_off_before_any_text_is_asked_for_again(client: JobClient, server: Server) -> None:
    server.answers += [chat(reason=None), chat("Hello")]
    assert text_of(client.run(messages=HELLO)) == "Hello"


def test_a_greedy_chat_that_breaks_off_continues_if_the_new_answer_begins_the_same(
    client: JobClient, server: Server
) -> None:
    server.answers += [chat("Hel", reason=None), chat("H", "ello", " you")]
    job = client.run(messages=HELLO, params=GREEDY)
    assert (job.status, text_of(job)) == (Status.SUCCEEDED, "Hello you")
    assert job.usage == Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=2)


@pytest.mark.parametrize("other", [("Hi",), ("He",)])
def test_two_answers_are_never_mixed(client: JobClient, server: Server, other: tuple[str, ...]) -> None:
    server.answers += [chat("Hel", reason=None), chat(*other)]
    job = client.run(messages=HELLO, params=GREEDY)
    assert (job.status, text_of(job), error_of(job)[0]) == (Status.FAILED, "Hel", "upstream_error")


@pytest.mark.parametrize("chunk", ['{"choices": [{"index": 0, "text": 5}]}', '{"choices": 7}', "no JSON", '"text"'])
def test_an_answer_in_another_shape_is_a_failure_of_the_upstream_server(
    client: JobClient, server: Server, chunk: str
) -> None:
    server.answers += [chunks(chunk)] * 4
    assert error_of(client.run())[0] == "upstream_error"


def test_an_error_within_a_stream_is_translated(client: JobClient, server: Server) -> None:
    server.answers += [chunks({"error": {"message": SECRET, "code": 500}})] * 4
    code, message = error_of(client.run())
    assert code == "upstream_error" and SECRET not in message


def test_a_filtered_answer_has_the_finish_reason_content_filter(client: JobClient, server: Server) -> None:
    server.answers.append(chat("It", reason="content_filter"))
    job = client.run(messages=HELLO)
    assert job.output is not None and job.output.finish_reason is FinishReason.CONTENT_FILTER


def test_the_connection_to_a_silent_server_is_closed(
    make_worker: Callable[..., Worker], store: JobStore, server: Server
) -> None:
    client = JobClient(make_worker(silence_seconds=0.3), store)
    server.answers += [hangs("a"), text("b")]
    assert text_of(client.run("p")) == "ab"
    assert server.disconnected.wait(scaled(5))


def test_a_job_ends_at_its_time_whatever_the_server_does(client: JobClient, server: Server) -> None:
    server.answers += [hangs("a")]
    job = client.run(timeout_seconds=0.5)
    assert (error_of(job)[0], text_of(job)) == ("timeout", "a")
    assert server.disconnected.wait(scaled(5)), "the connection is closed"


def test_canceling_a_job_closes_its_connection(client: JobClient, server: Server, store: JobStore) -> None:
    server.answers += [hangs("a")]
    job_id = client.begin(stream=True)
    until(lambda: server.bodies)
    client.cancel(job_id)
    assert client.wait_for(job_id).status is Status.CANCELED
    assert server.disconnected.wait(scaled(5))


def test_canceling_a_job_that_has_just_ended_does_nothing(server: Server) -> None:
    runner = RemoteRunner(config_for(server), lambda *_: None, Host(lambda _: None))
    ended = RunnerJob("ended", JobRequest(kind=Kind.GENERATE))
    assert ended.run is None, "as the registry of running jobs leaves it"
    runner.cancel(ended)
    runner.close()


# --- workers that come and go -----------------------------------------------------------------------------------------


def cut_off(client: JobClient, server: Server, redis_client: RedisClient, **options: Any) -> str:
    """A job whose worker has left, after it has published "ab"."""
    server.answers += [hangs("a", "b")]
    job_id = client.begin(stream=True, **options)
    until(lambda: read_published(redis_client, job_id).text == "ab")
    assert client.worker.hand_back()
    assert server.disconnected.wait(scaled(5))
    return job_id


def test_another_worker_continues_a_completion(
    make_worker: Callable[..., Worker], store: JobStore, server: Server, redis_client: RedisClient
) -> None:
    job_id = cut_off(JobClient(make_worker("worker-0"), store), server, redis_client)
    server.answers += [text("c", usage=(4, 1))]
    client = JobClient(make_worker(), store)
    client.worker.claim_next()
    job = client.wait_for(job_id)
    assert (text_of(job), job.usage) == ("abc", Usage(prompt_tokens=2, completion_tokens=3, cached_tokens=2))
    assert server.bodies[-1]["prompt"] == "a promptab"


def test_another_worker_does_not_continue_a_chat(
    make_worker: Callable[..., Worker], store: JobStore, server: Server, redis_client: RedisClient
) -> None:
    job_id = cut_off(JobClient(make_worker("worker-0"), store), server, redis_client, messages=HELLO)
    client = JobClient(make_worker(), store)
    client.worker.claim_next()
    job = client.wait_for(job_id)
    assert (job.status, text_of(job), error_of(job)[0]) == (Status.FAILED, "ab", "upstream_error")
    assert len(server.bodies) == 1


def test_a_remote_job_passes_its_trial_when_it_begins(
    make_worker: Callable[..., Worker], store: JobStore, server: Server, redis_url: str
) -> None:
    lost = [store.admit(JobRequest(kind=Kind.GENERATE, prompt="p"), ME).id for _ in range(3)]
    for _ in lost:
        store.claim("worker-0")
    for job_id in lost:
        lose_worker(redis_url, job_id)
    server.answers += [hangs("a")] * 3
    client = JobClient(make_worker(), store)
    for _ in lost:
        client.worker.claim_next()
    until(lambda: len(server.bodies) == 3)
    until(client.worker.has_room)


def test_as_many_requests_run_at_once_as_there_are_slots(client: JobClient, server: Server) -> None:
    server.answers += [hangs("a")] * 8
    for _ in range(3):
        client.begin()
    until(lambda: len(server.bodies) == 3)
    assert client.worker.has_room()


# --- the start --------------------------------------------------------------------------------------------------------


def start(server: Server, base_url: str | None = None) -> None:
    config = config_for(server)
    if base_url is not None:
        config.setup_params["base_url"] = base_url
    RemoteRunner(config, lambda *_: None, Host(lambda _: None)).close()


@pytest.mark.parametrize("status", [500, 404, 403])
def test_a_server_that_lists_no_models_is_a_line_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server.on_models = refuses(status)
    start(server)
    (record,) = caplog.records
    assert "cannot be listed" in record.message and str(status) in record.message
    assert SECRET not in caplog.text


def test_a_server_that_is_not_there_is_a_line_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    start(server, "http://127.0.0.1:1/v1")
    (record,) = caplog.records
    assert "cannot be reached" in record.message


def test_a_model_that_is_not_listed_is_a_line_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.on_models = json_answer({"object": "list", "data": [{"id": "another"}]})
    start(server)
    (record,) = caplog.records
    assert "lists no model 'remote'" in record.message


def test_a_key_that_is_refused_ends_the_start(server: Server) -> None:
    server.on_models = refuses(401)
    with pytest.raises(ModelUnavailable, match=r"setup_params\.api_key") as raised:
        start(server)
    assert SECRET not in str(raised.value)
