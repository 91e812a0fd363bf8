"""One client and its job: its request, its way of waiting for the end, and what it receives meanwhile."""

import enum
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.app.api.sse_reading import Received, parse

POLL_SECONDS = 5
_ENDS = {"job_canceled": "canceled", "worker_lost": "failed", "engine_error": "failed", "expired": "expired"}
_NOT_NOW = {503, 504}


class Way(enum.Enum):
    """How a client waits."""

    GENERATE = "/generate"
    POLL = "/agenerate, then /jobs/{id}"
    TEXT_STREAM = "/agenerate as a stream"
    EVENTS = "/agenerate, then /jobs/{id}/events"

    @property
    def streams(self) -> bool:
        return self in (Way.TEXT_STREAM, Way.EVENTS)


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request for a greedy job, and the `text` that it should produce in so many tokens.

    No two requests to a service have the same prompt.
    """

    prompt: str
    tokens: int
    way: Way
    text: str

    @property
    def body(self) -> dict[str, Any]:
        params = {"max_tokens": self.tokens, "temperature": 0, "ignore_eos": True}
        return {"prompt": self.prompt, "params": params}


@dataclass(slots=True)
class ClientView:
    """What a client has received, over all its connections.

    text: from a stream or from the final answer. ends: final statuses. breaks: connections that broke.
    refusals: answers with the advice to try again. patience_ends_at: on the monotonic clock. defects: what no client
    should see.
    """

    request: ClientRequest
    job_ids: set[str] = field(default_factory=set)
    text: str = ""
    last_event_id: str | None = None
    ends: list[str] = field(default_factory=list)
    breaks: int = 0
    refusals: int = 0
    patience_ends_at: float = math.inf
    defects: list[str] = field(default_factory=list)

    @property
    def job_id(self) -> str | None:
        return next(iter(self.job_ids), None)

    @property
    def is_patient(self) -> bool:
        return time.monotonic() < self.patience_ends_at

    def take(self, event: Received, text: str) -> None:
        """Add a piece of a stream, whose id must be greater than the last one's."""
        if self.last_event_id is not None and _place(event.id) <= _place(self.last_event_id):
            self.defects.append(f"the event {event.id} came after {self.last_event_id}")
        self.last_event_id = event.id
        self.text += text


class TryAgain(Exception):
    """The service cannot answer now, or the connection ended before the end of the job."""


class JobVanished(Exception):
    """The service does not know a job it has accepted."""


def counting(prompt: str, tokens: int, way: Way) -> ClientRequest:
    """Make a request for the counting engine; its text is without the voices."""
    return ClientRequest(prompt, tokens, way, "".join(f"{number} " for number in range(1, tokens + 1)))


def ask(http: httpx.Client, url: str, view: ClientView) -> None:
    """Send the request once more, on one connection, and wait for the end of the job.

    Raises:
        TryAgain: The job continues, send the request again; the same holds for httpx.TransportError.
        JobVanished: The service does not know the job.
    """
    _WAYS[view.request.way](http, url, view)


def _generate(http: httpx.Client, url: str, view: ClientView) -> None:
    answer = http.post(f"{url}/generate", json={**view.request.body, "details": True}, headers=_headers(view))
    if answer.status_code == 200:
        _take_job(view, answer.json())
    else:
        view.ends.append(_end_of(answer.status_code, answer.json()))


def _poll(http: httpx.Client, url: str, view: ClientView) -> None:
    job_id = view.job_id or _submit(http, url, view)
    while not view.ends and view.is_patient:
        answer = http.get(f"{url}/jobs/{job_id}", params={"wait": POLL_SECONDS})
        _raise_unless_ok(answer)
        if answer.json()["status"] not in ("queued", "processing"):
            _take_job(view, answer.json())


def _events(http: httpx.Client, url: str, view: ClientView) -> None:
    job_id = view.job_id or _submit(http, url, view)
    headers = {} if view.last_event_id is None else {"Last-Event-ID": view.last_event_id}
    with http.stream("GET", f"{url}/jobs/{job_id}/events", headers=headers) as response:
        _raise_unless_ok(response)
        for event in _received(response, view):
            if event.name == "error":
                raise TryAgain(event.data)
            view.take(event, event.json["text"] if event.name == "delta" else "")
            if event.name == "end":
                view.ends.append(event.json["status"])
    if not view.ends:
        raise TryAgain("the stream is over without an end")


def _text_stream(http: httpx.Client, url: str, view: ClientView) -> None:
    """Read the text; a new connection sends it from its beginning again, and it must be the same."""
    before, view.text, view.last_event_id = view.text, "", None
    try:
        view.ends.append(_read_text(http, url, view))
    finally:
        if not (view.text.startswith(before) or before.startswith(view.text)):
            view.defects.append(f"the stream brought {view.text!r}, and {before!r} before")
        view.text = max(view.text, before, key=len)


def _read_text(http: httpx.Client, url: str, view: ClientView) -> str:
    body = {**view.request.body, "stream": True}
    with http.stream("POST", f"{url}/agenerate", json=body, headers=_headers(view)) as response:
        if response.status_code != 200:
            return _end_of(response.status_code, _json(response))
        for event in _received(response, view):
            if event.name == "error":
                return _end_of(event.json["status"], event.json)
            view.take(event, event.data)
    return "succeeded"


_WAYS = {Way.GENERATE: _generate, Way.POLL: _poll, Way.EVENTS: _events, Way.TEXT_STREAM: _text_stream}


def _submit(http: httpx.Client, url: str, view: ClientView) -> str:
    answer = http.post(f"{url}/agenerate", json=view.request.body, headers=_headers(view))
    _raise_unless_ok(answer)
    job_id: str = answer.json()["id"]
    view.job_ids.add(job_id)
    return job_id


def _headers(view: ClientView) -> dict[str, str]:
    """Return the idempotency key, with which repeated requests make one job."""
    return {"Idempotency-Key": view.request.prompt.replace(" ", "-")}


def _take_job(view: ClientView, job: dict[str, Any]) -> None:
    view.job_ids.add(job["id"])
    view.text = job["output"]["text"] if job["output"] else ""
    view.ends.append(job["status"])


def _raise_unless_ok(answer: httpx.Response) -> None:
    if answer.status_code == 404:
        raise JobVanished(answer.url.path)
    if answer.status_code >= 300:
        _end_of(answer.status_code, _json(answer))
        raise AssertionError(f"{answer.url.path}: {answer.status_code} for a request that only reads or admits")


def _end_of(status: int, problem: dict[str, Any]) -> str:
    """Return the end of the job that a problem document reports. Raises TryAgain."""
    end = _ENDS.get(problem.get("code", ""))
    if end is None and status in _NOT_NOW:
        raise TryAgain(problem.get("code"))
    assert end is not None, f"{status}: {problem}"
    return end


def _json(response: httpx.Response) -> dict[str, Any]:
    response.read()
    document: dict[str, Any] = response.json()
    return document


def _received(response: httpx.Response, view: ClientView) -> Iterator[Received]:
    """Yield the events as they come, without comments; raise when the patience of the client has ended."""
    lines: list[str] = []
    for line in response.iter_lines():
        lines.append(line)
        if not line:
            yield from parse("\n".join(lines))
            lines = []
        if not view.is_patient:
            raise TryAgain("too late")


def _place(event_id: str | None) -> tuple[int, ...]:
    return tuple(map(int, (event_id or "0-0").split("-")))
