"""Streams of job events as server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html.

One class writes the body of every stream; an encoder for each format turns an event into bytes.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from flask import Response

from app.api.job_ends import raise_unless_succeeded
from app.api.json_response import EVENT_STREAM, write_json
from app.api.pending_jobs import PastEvents, PendingJobs
from app.api.problems import problem
from app.errors import LLMAPIError
from app.jobs.events import Delta, End, EventEntry, Started
from app.jobs.job import Job

HEARTBEAT_SECONDS = 10.0  # a write shows the server whether the client is still there, and keeps proxies from closing
HEAD_SECONDS = 1.0  # the head of a response that follows an existing job is held back this long at most
COMMENT = b": still here\n\n"
Renaming = Callable[[], contextlib.AbstractContextManager[None]]
HEADERS = {"X-Accel-Buffering": "no"}


class EventEncoder(ABC):
    """Writes the events of a stream in one format."""

    @abstractmethod
    def encode(self, index: int, entry: EventEntry) -> bytes:
        """Return what an event of the `index`-th job adds to the body. An LLMAPIError it raises ends the stream."""

    def begin(self) -> bytes:
        """Return what comes before the first event."""
        return b""

    def end(self) -> bytes:
        """Return what comes after the end of the last job."""
        return b""

    def error(self, error: LLMAPIError) -> bytes:
        """Return the last bytes of a stream that ends with an error, after the head of the response has been sent."""
        return write_event(write_json(problem(error)), event="error")


class JSONEncoder(EventEncoder):
    """Events with their type and their data as JSON."""

    def encode(self, index: int, entry: EventEntry) -> bytes:
        return write_event(entry.data, event=entry.event.type, event_id=entry.id)


class TextEncoder(EventEncoder):
    """Each delta of one job as its text and nothing else, which the published clients read."""

    def __init__(self) -> None:
        self._ends_with_cr = False

    def encode(self, index: int, entry: EventEntry) -> bytes:
        event = entry.event
        if isinstance(event, Delta) and event.text:
            text = event.text.removeprefix("\n") if self._ends_with_cr else event.text  # CRLF is one end of a line
            self._ends_with_cr = event.text.endswith("\r")
            return write_event(text, event_id=entry.id) if text else b""
        if isinstance(event, End):
            raise_unless_succeeded(event.status, event.error)
        return b""


class StreamBody:
    """The body of a response: the events of jobs in the format of an encoder, and heartbeats while nothing happens."""

    def __init__(self, jobs: PendingJobs | PastEvents, encoder: EventEncoder, renaming: Renaming) -> None:
        self._jobs = jobs
        self._encoder = encoder
        self._renaming = renaming
        self._held = encoder.begin()

    def hold_output(self) -> None:
        """Wait for the first bytes of output, its end, or a heartbeat. Until then an error can still become the status.

        Raises the error that a job ended with.
        """
        while not self._jobs.has_ended:
            item = self._jobs.next_event(HEARTBEAT_SECONDS)
            self._held += self._encode(item)
            event = None if item is None else item[1].event
            if item is not None and isinstance(event, End):
                raise_unless_succeeded(event.status, event.error, item[0])
            if self._held and not isinstance(event, Started):
                return

    def hold_event(self) -> None:
        """Wait for the first event, `HEAD_SECONDS` at most, unless there is something to send already."""
        if not self._held and not self._jobs.has_ended:
            self._held = self._encode(self._jobs.next_event(HEAD_SECONDS))

    def __iter__(self) -> Iterator[bytes]:
        try:
            self._close_if_ended()
            if self._held:
                yield self._held
            while not self._jobs.has_ended:
                with self._renaming():
                    piece = self._encode(self._jobs.next_event(HEARTBEAT_SECONDS))
                self._close_if_ended()
                if piece:
                    yield piece
            if last := self._encoder.end():
                yield last
        except LLMAPIError as error:
            yield self._encoder.error(error)

    def _close_if_ended(self) -> None:
        """Close the jobs before the last bytes are sent: a client that has them finds nothing of jobs not stored."""
        if self._jobs.has_ended:
            self._jobs.close()

    def _encode(self, item: tuple[int, EventEntry] | None) -> bytes:
        return COMMENT if item is None else self._encoder.encode(*item)


def stream_events(
    jobs: PendingJobs | PastEvents,
    make_encoder: Callable[[Sequence[Job]], EventEncoder],
    *,
    are_own: bool = True,
    renaming: Renaming = contextlib.nullcontext,
) -> Response:
    """Stream the events of jobs, and close the jobs with the response.

    Args:
        are_own: True: this request made the jobs; a failure before the first byte is raised. False: the jobs existed
            before; failures are sent as events.
        renaming: gives errors after the first byte the names of fields that the client has used.
    """
    with contextlib.ExitStack() as resources:
        resources.callback(jobs.close)
        body = StreamBody(jobs, make_encoder(jobs.jobs), renaming)
        body.hold_output() if are_own else body.hold_event()
        response = Response(body, content_type=EVENT_STREAM, headers=HEADERS)
        response.call_on_close(resources.pop_all().close)
    return response


def write_event(data: str, *, event: str | None = None, event_id: str | None = None) -> bytes:
    """Write one event. CR and CRLF, which the format cannot carry, become LF."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {event}\n" if event else "")
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()
