"""The stream of a completion: the chunks of all its choices, its usage, and `[DONE]`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from app.api.event_stream import EventEncoder, write_event
from app.api.job_ends import raise_unless_succeeded
from app.api.json_response import write_json
from app.api.openai.envelope import usage
from app.api.problems import openai_error
from app.errors import LLMAPIError
from app.jobs.events import Delta, End, EventEntry
from app.jobs.job import FinishReason, TokenLogprob, Usage

DONE = write_event("[DONE]")

Choice = dict[str, Any]


class ChoiceWriter(Protocol):
    """Writes one choice: each value is its part of one chunk."""

    def delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Choice]: ...

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]: ...


class ChunkEncoder(EventEncoder):
    """Each event of a choice's job as chunks of the response."""

    def __init__(
        self, writers: Sequence[ChoiceWriter], envelope: dict[str, Any], *, prompts: int, includes_usage: bool
    ) -> None:
        """envelope: what each chunk begins with. prompts: each has as many choices. includes_usage: in a last chunk."""
        self._writers = writers
        self._envelope = envelope
        self._prompts = prompts
        self._includes_usage = includes_usage
        self._usages = [Usage() for _ in writers]

    def encode(self, index: int, entry: EventEntry) -> bytes:
        """Raises the error that a job ended with."""
        event, writer = entry.event, self._writers[index]
        if isinstance(event, Delta):
            return self._chunks(writer.delta(event.text, event.logprobs))
        if isinstance(event, End):
            raise_unless_succeeded(event.status, event.error, index)
            self._usages[index] = event.usage or Usage()
            return self._chunks(writer.end(event.finish_reason))
        return b""

    def end(self) -> bytes:
        if not self._includes_usage:
            return DONE
        return _write({**self._envelope, "choices": [], "usage": usage(self._usages, self._prompts)}) + DONE

    def error(self, error: LLMAPIError) -> bytes:
        return _write(openai_error(error))

    def _chunks(self, choices: Iterable[Choice]) -> bytes:
        no_usage: dict[str, Any] = {"usage": None} if self._includes_usage else {}
        return b"".join(_write({**self._envelope, "choices": [choice], **no_usage}) for choice in choices)


def _write(value: Any) -> bytes:
    return write_event(write_json(value))
