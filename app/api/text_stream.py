"""The stream of `/agenerate`: a job is admitted, and its text goes out as it comes."""

import contextlib
import logging
from collections.abc import Generator, Iterator

import redis
from flask import Response

from app.api import dispatch, sse
from app.api.json_response import EVENT_STREAM
from app.api.services import services
from app.api.waiting.waiters import Waiters
from app.errors import JobNotFound, LLMAPIError
from app.jobs.events import FROM_START, Event, EventType
from app.jobs.job import JobError, JobRequest, OnDisconnect, Status
from app.jobs.store import JobStore, new_job_id

logger = logging.getLogger(__name__)


class TextStream:
    """The text of one job, as the body of a response. `ended`: the job's end has been seen."""

    def __init__(self, events: Iterator[Event | None]) -> None:
        self.ended = False
        self._events = events
        self._held: bytes = b""

    def hold(self) -> None:
        """Wait for the first piece of text, the end, or a heartbeat: until then an error can still be a status.

        Raises what the job failed with.
        """
        for event in self._events:
            self._held = self._chunk(event)
            if self._held or self.ended:
                return

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._held:
                yield self._held
            while not self.ended:
                if chunk := self._chunk(next(self._events)):
                    yield chunk
        except LLMAPIError as error:
            yield sse.error_event(error)

    def _chunk(self, event: Event | None) -> bytes:
        """What an event puts into the response. Raises what the job failed with."""
        if event is None:
            return sse.COMMENT
        if event.type is EventType.END:
            self.ended = True
            error = event.data.get("error")
            dispatch.raise_unless_succeeded(Status(event.data["status"]), JobError(**error) if error else None)
        return sse.text_event(event) if event.type is EventType.DELTA and event.data["text"] else b""


def respond(job_request: JobRequest, on_disconnect: OnDisconnect | None) -> Response:
    """Admit a job and stream its text. Raises what `dispatch.run` raises, as long as nothing has been sent."""
    store, waiters, job_id = services().store, services().waiters, new_job_id()
    with contextlib.ExitStack() as resources:
        waiter = resources.enter_context(waiters.expect(job_id, FROM_START))
        job = dispatch.admit(job_request, job_id)
        if job.id == job_id:
            stream = TextStream(waiter.events(sse.HEARTBEAT_SECONDS))
            if dispatch.cancels_when_left(on_disconnect):
                resources.callback(_cancel_unless_ended, stream, waiters, store, job_id)
        else:
            resources.close()  # nothing will ever happen to the job that was expected
            stream = TextStream(resources.enter_context(_following(job.id)))
        stream.hold()
        response = Response(stream, content_type=EVENT_STREAM, headers=sse.HEADERS)
        response.call_on_close(resources.pop_all().close)
    return response


@contextlib.contextmanager
def _following(job_id: str) -> Iterator[Iterator[Event | None]]:
    """The events of a job that an earlier request has made, from its start."""
    services().store.follow(job_id)
    following = services().waiters.follow(job_id, heartbeat_seconds=sse.HEARTBEAT_SECONDS)
    assert isinstance(following, Generator)
    with contextlib.closing(following):
        yield following


def _cancel_unless_ended(stream: TextStream, waiters: Waiters, store: JobStore, job_id: str) -> None:
    """The response is over; where the job is not, its client has left, or this process ends and the job goes on."""
    if stream.ended or waiters.is_shut_down:
        return
    try:
        store.cancel(job_id)
    except JobNotFound:
        pass
    except redis.RedisError as error:
        logger.warning("job %s goes on although its client has left: %s", job_id, type(error).__name__)
