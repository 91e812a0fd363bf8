"""A response as server-sent events. They are numbered, and the same however often the stream is read: whoever knows the
number of the last one goes on behind it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from app.api import sse
from app.api.json_response import write_json
from app.api.openai.responses import item_status, response_with, writer_of
from app.api.problems import openai_error
from app.errors import LLMAPIError
from app.jobs.events import Event, EventType
from app.jobs.job import FinishReason, Job, JobError, JobRequest, Output, Status, TokenLogprob, Usage

_LAST = {"completed": "completed", "incomplete": "incomplete"}  # what has no name of its own is told as failed


class ResponseStream:
    """The events of one job as those of its response; its job is asked about from the first event on.

    starting_after: the number of the last event that the client has; -1 = none.
    """

    def __init__(self, job: Job, request: JobRequest, starting_after: int = -1) -> None:
        self._job = replace(job, status=Status.QUEUED, output=None, usage=None, error=None, completed_at=None)
        self._request = request
        self._writer = writer_of(job.id, request)
        self._starting_after = starting_after
        self._number = -1
        self._has_started = False

    def chunks(self, events: Iterable[Event | None]) -> Iterator[bytes]:
        """events: of the job, from its first on; None where nothing has happened for a while."""
        try:
            yield self._write(self._begin())
            for event in events:
                yield sse.COMMENT if event is None else self._write(self._told(event))
        except LLMAPIError as error:
            told = openai_error(error)["error"]
            told = {"type": "error", "code": told["code"], "message": told["message"], "param": told["param"]}
            yield self._write([told])

    def _write(self, told: Iterable[dict[str, Any]]) -> bytes:
        written = []
        for one in told:
            self._number += 1
            if self._number > self._starting_after:
                numbered = {**one, "sequence_number": self._number}
                written.append(sse.encode(write_json(numbered), event=one["type"]))
        return b"".join(written)

    def _begin(self) -> Iterator[dict[str, Any]]:
        yield self._state("created")
        yield self._state("queued")

    def _told(self, event: Event) -> Iterator[dict[str, Any]]:
        if event.type is EventType.STARTED and not self._has_started:
            self._has_started = True
            self._job = replace(self._job, status=Status.PROCESSING)
            yield self._state("in_progress")
        elif event.type is EventType.DELTA:
            logprobs = [TokenLogprob(**entry) for entry in event.data.get("logprobs", ())]
            yield from self._writer.feed(event.data["text"], logprobs)
        elif event.type is EventType.END:
            yield from self._end(event)

    def _end(self, event: Event) -> Iterator[dict[str, Any]]:
        data = event.data
        status, error, usage = Status(data["status"]), data.get("error"), data.get("usage")
        reason = FinishReason(data["finish_reason"]) if data.get("finish_reason") else None
        yield from self._writer.finish(item_status(status, reason))
        self._job = replace(
            self._job,
            status=status,
            output=Output(finish_reason=reason),
            usage=None if usage is None else Usage(**usage),
            error=None if error is None else JobError(**error),
            completed_at=int(event.id.partition("-")[0]) / 1000,
        )
        response = response_with(self._job, self._request, self._writer.items)
        yield {"type": f"response.{_LAST.get(response['status'], 'failed')}", "response": response}

    def _state(self, name: str) -> dict[str, Any]:
        return {"type": f"response.{name}", "response": response_with(self._job, self._request, [])}
