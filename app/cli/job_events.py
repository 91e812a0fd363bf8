"""The events of a job, followed over as many connections as it takes."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any

import click

from app.cli.client import Client, RequestFailed, resource
from app.config.counted import counted

PATIENCE_SECONDS = 120.0  # without an event or a connection; a restart of everything takes less
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What happened to a job: `started`, `delta` or `end`. id: to resume after."""

    id: str
    type: str
    data: dict[str, Any]


def follow(client: Client, job_id: str, on_break: Callable[[str], None] = lambda _: None) -> Iterator[JobEvent]:
    """Give each event of a job once, up to its end; a lost connection is made again after the last event.

    Args:
        on_break: called with the reason once for each loss.

    Raises:
        RequestFailed: the job is not there, or the service has been away for `PATIENCE_SECONDS`.
    """
    last_id, last_seen, is_lost = "", time.monotonic(), False
    while True:
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            with client.open("GET", resource("/jobs", job_id, "events"), headers=headers) as response:
                is_lost, last_seen = False, time.monotonic()
                for event in read_events(response):
                    if event.type == "error":
                        raise _failure(event.data)
                    last_id, last_seen = event.id, time.monotonic()
                    yield event
                    if event.type == "end":
                        return
            reason = "the connection ended"
        except RequestFailed as error:
            if not error.may_pass or time.monotonic() - last_seen > PATIENCE_SECONDS:
                raise
            reason = error.message
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
        if not is_lost:
            on_break(reason)
        is_lost = True
        time.sleep(_PAUSE_SECONDS)


def read_events(stream: IO[bytes]) -> Iterator[JobEvent]:
    """Read server-sent events whose data is JSON. What is cut off at the end of the stream is left out.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    fields: dict[str, str] = {}
    for line in stream:
        text = line.decode().rstrip("\r\n")
        if not text:
            if "data" in fields:
                yield JobEvent(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields['data']}\n{value}" if name == "data" and name in fields else value


def note_of_limit(end: JobEvent) -> str | None:
    """Return a line for a text that was cut off, None for any other."""
    if end.data.get("finish_reason") != "length":
        return None
    return f"[ended at the limit of {counted(_tokens(end), 'token')}]"


def note_of_own_limit(end: JobEvent, max_tokens: int | None) -> str | None:
    """Return `note_of_limit`, with what to do about it.

    Args:
        max_tokens: what the request has asked for; None: the default of the service.
    """
    if (note := note_of_limit(end)) is None:
        return None
    if max_tokens in (None, _tokens(end)):
        return f"{note[:-1]}; --max-tokens N for more]"
    return f"[ended after {counted(_tokens(end), 'token')}: the context is full, or the API key allows no more]"


def _tokens(end: JobEvent) -> int:
    return int((end.data.get("usage") or {}).get("completion_tokens", 0))


def _failure(problem: dict[str, Any]) -> RequestFailed:
    """Return why the service ended a stream before the job has ended."""
    return RequestFailed(problem["detail"], status=problem["status"], code=problem["code"])


class JobFailed(click.ClickException):
    """A job that ended without its text. The message is the reason in the job's record."""


def raise_unless_succeeded(end: JobEvent) -> None:
    """Raise JobFailed for an end that is not `succeeded`."""
    status, error = end.data["status"], end.data.get("error") or {}
    if status != "succeeded":
        raise JobFailed(error.get("message") or f"the job is {status}")
