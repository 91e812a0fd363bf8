"""A response as server-sent events.

They are numbered, and the same at each reading of the stream, so that a client may resume after any number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from app.api.event_stream import EventEncoder, write_event
from app.api.json_response import write_json
from app.api.openai.response_object import item_status, response_with, writer_of
from app.api.problems import openai_error
from app.errors import LLMAPIError
from app.jobs.events import Delta, End, EventEntry, Started, entry_time
from app.jobs.job import Job, JobRequest, Output, Status

_WITH_OWN_EVENT = ("completed", "incomplete")  # other final statuses are reported by `response.failed`


class ResponseEncoder(EventEncoder):
    """The events of a job as those of its response. It needs the events of the job from the first on.

    starting_after: the number of the last event that the client has; -1 = none.
    """

    def __init__(self, job: Job, request: JobRequest, starting_after: int = -1) -> None:
        self._job = replace(job, status=Status.QUEUED, output=None, usage=None, error=None, completed_at=None)
        self._request = request
        self._writer = writer_of(job.id, request)
        self._starting_after = starting_after
        self._number = -1
        self._has_started = False

    def begin(self) -> bytes:
        return self._write([self._state("created"), self._state("queued")])

    def encode(self, index: int, entry: EventEntry) -> bytes:
        return self._write(self._events(entry))

    def error(self, error: LLMAPIError) -> bytes:
        values = openai_error(error)["error"]
        return self._write([{"type": "error", **{name: values[name] for name in ("code", "message", "param")}}])

    def _write(self, events: Iterable[dict[str, Any]]) -> bytes:
        written = []
        for event in events:
            self._number += 1
            if self._number > self._starting_after:
                numbered = {**event, "sequence_number": self._number}
                written.append(write_event(write_json(numbered), event=event["type"]))
        return b"".join(written)

    def _events(self, entry: EventEntry) -> Iterator[dict[str, Any]]:
        event = entry.event
        if isinstance(event, Started) and not self._has_started:
            self._has_started = True
            self._job = replace(self._job, status=Status.PROCESSING)
            yield self._state("in_progress")
        elif isinstance(event, Delta):
            yield from self._writer.feed(event.text, event.logprobs)
        elif isinstance(event, End):
            yield from self._end(event, entry_time(entry.id))

    def _end(self, end: End, ended_at: float) -> Iterator[dict[str, Any]]:
        yield from self._writer.finish(item_status(end.status, end.finish_reason))
        self._job = replace(
            self._job,
            status=end.status,
            output=Output(finish_reason=end.finish_reason),
            usage=end.usage,
            error=end.error,
            completed_at=ended_at,
        )
        response = response_with(self._job, self._request, self._writer.items)
        status = response["status"]
        yield {"type": f"response.{status if status in _WITH_OWN_EVENT else 'failed'}", "response": response}

    def _state(self, name: str) -> dict[str, Any]:
        return {"type": f"response.{name}", "response": response_with(self._job, self._request, [])}
