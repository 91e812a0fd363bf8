"""Events as stored in Redis: reading returns what was written, and the JSON that clients get stays the same."""

import pytest

from app.jobs.events import Delta, End, Event, Started, decode_entry, encode_delta, encode_end
from app.jobs.job import FinishReason, JobError, Status, TokenLogprob, Usage

LOGPROB = TokenLogprob(token="é", logprob=-0.5, top={"é": -0.5})


@pytest.mark.parametrize(
    ("delta", "data"),
    [
        (Delta("é", (1, 2)), '{"text":"é"}'),
        (Delta("é", (), (LOGPROB,)), '{"text":"é","logprobs":[{"token":"é","logprob":-0.5,"top":{"é":-0.5}}]}'),
    ],
)
def test_a_delta_is_its_text_and_its_logprobs(delta: Delta, data: str) -> None:
    assert encode_delta(delta) == data
    assert decode_entry("1-0", "delta", data).event == Delta(delta.text, (), delta.logprobs)


@pytest.mark.parametrize(
    ("end", "data"),
    [
        (End(Status.EXPIRED), '{"status":"expired"}'),
        (
            End(Status.SUCCEEDED, FinishReason.STOP, Usage(prompt_tokens=3)),
            '{"status":"succeeded","finish_reason":"stop",'
            '"usage":{"prompt_tokens":3,"completion_tokens":0,"cached_tokens":0}}',
        ),
        (
            End(Status.FAILED, error=JobError(code="timeout", message="m")),
            '{"status":"failed","error":{"code":"timeout","message":"m","errors":{}}}',
        ),
    ],
)
def test_an_end_holds_only_the_given_fields(end: End, data: str) -> None:
    assert encode_end(end) == data
    assert decode_entry("1-0", "end", data).event == end


@pytest.mark.parametrize(
    ("event_type", "data", "event"),
    [
        ("started", '{"attempt":2}', Started(2)),
        (
            "end",
            '{"status":"failed","error":{"code":"worker_lost","message":"m"}}',
            End(Status.FAILED, error=JobError(code="worker_lost", message="m")),
        ),
    ],
)
def test_what_scripts_write_is_read_and_kept_as_it_is(event_type: str, data: str, event: Event) -> None:
    entry = decode_entry("1-0", event_type, data)
    assert (entry.id, entry.event, entry.data) == ("1-0", event, data)
