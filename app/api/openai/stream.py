"""An answer as it comes: the chunks of all its choices as server-sent events, its usage, and `[DONE]`."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from flask import Response

from app.api import dispatch, sse
from app.api.json_response import EVENT_STREAM, write_json
from app.api.openai.choices import Choices, admitted
from app.api.openai.envelope import Envelope, usage
from app.api.problems import openai_error
from app.errors import LLMAPIError
from app.jobs.events import Event, EventType
from app.jobs.job import FinishReason, Job, JobError, JobRequest, OnDisconnect, Status, TokenLogprob, Usage

DONE = b"data: [DONE]\n\n"

Choice = dict[str, Any]


class Writer(Protocol):
    """Writes one choice: each value is its part of one chunk."""

    def delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Choice]: ...

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]: ...


class AnswerStream:
    """The body of a response.

    prompts: of which each has the same number of choices. tells_usage: in a last chunk.
    """

    def __init__(
        self, choices: Choices, writers: Sequence[Writer], envelope: Envelope, *, prompts: int, tells_usage: bool
    ) -> None:
        self._choices = choices
        self._writers = writers
        self._envelope = envelope
        self._prompts = prompts
        self._tells_usage = tells_usage
        self._usages: list[Usage] = [Usage() for _ in writers]
        self._held = b""

    def hold(self) -> None:
        """Wait for the first chunk, or a heartbeat: until then an error can still be a status. Raises it."""
        while not self._held and not self._choices.has_ended:
            self._held = self._next()

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._held:
                yield self._held
            while not self._choices.has_ended:
                if chunks := self._next():
                    yield chunks
            yield self._last_words()
        except LLMAPIError as error:
            yield _event(openai_error(error))

    def _next(self) -> bytes:
        """What the next event puts into the response. Raises what a job ended with."""
        news = self._choices.next(sse.HEARTBEAT_SECONDS)
        if news is None:
            return sse.COMMENT
        index, event = news
        assert isinstance(event, Event)
        writer = self._writers[index]
        if event.type is EventType.DELTA:
            logprobs = [TokenLogprob(**entry) for entry in event.data.get("logprobs", ())]
            return self._chunks(writer.delta(event.data["text"], logprobs))
        if event.type is EventType.END:
            return self._chunks(writer.end(self._finish(index, event)))
        return b""

    def _finish(self, index: int, event: Event) -> FinishReason | None:
        """Raises what the job ended with."""
        error = event.data.get("error")
        dispatch.raise_unless_succeeded(Status(event.data["status"]), JobError(**error) if error else None)
        self._usages[index] = Usage(**event.data["usage"])
        reason = event.data.get("finish_reason")
        return None if reason is None else FinishReason(reason)

    def _chunks(self, written: Iterable[Choice]) -> bytes:
        nothing: dict[str, Any] = {"usage": None} if self._tells_usage else {}
        return b"".join(_event(self._envelope.hold([choice], **nothing)) for choice in written)

    def _last_words(self) -> bytes:
        if not self._tells_usage:
            return DONE
        return _event(self._envelope.hold([], usage=usage(self._usages, self._prompts))) + DONE


def respond(
    requests: Sequence[JobRequest],
    on_disconnect: OnDisconnect | None,
    *,
    write: Callable[[int, Job], Writer],
    envelope: Callable[[Job], Envelope],
    prompts: int,
    tells_usage: bool,
) -> Response:
    """Admit the jobs of an answer and stream it. Raises what a job failed with, as long as nothing has been sent.

    write: makes the writer of one choice.
    """
    with contextlib.ExitStack() as resources:
        choices = resources.enter_context(admitted(requests, on_disconnect, stream=True))
        writers = [write(index, job) for index, job in enumerate(choices.jobs)]
        stream = AnswerStream(choices, writers, envelope(choices.jobs[0]), prompts=prompts, tells_usage=tells_usage)
        stream.hold()
        response = Response(stream, content_type=EVENT_STREAM, headers=sse.HEADERS)
        response.call_on_close(resources.pop_all().close)
    return response


def _event(value: Any) -> bytes:
    return f"data: {write_json(value)}\n\n".encode()
