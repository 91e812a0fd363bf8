"""A job's event stream: what a client follows, and where a worker finds what has been published already.

An entry is `{type, data}`: `started {"attempt"}`, `delta {"text", "logprobs"?}`, `end {"status", "finish_reason"?,
"usage"?, "error"?}`. A `delta` also holds `tokens`, the ids behind its text, for the worker that takes the job over.
The ids are Redis stream ids: they grow, and reading may resume after any of them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.jobs import keys
from app.jobs.job import TokenLogprob
from app.jobs.redis_client import RedisClient

FROM_START = "0-0"
_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}\Z")  # two unsigned 64-bit numbers, as Redis has it


class EventType(StrEnum):
    STARTED = "started"
    DELTA = "delta"
    END = "end"


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    type: EventType
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a job's text, with the tokens behind it."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """All that has been written of a job. first_at: Unix seconds of the first delta."""

    deltas: tuple[Delta, ...]
    first_at: float | None

    @property
    def tokens(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def is_event_id(text: str) -> bool:
    return bool(_ID.match(text))


def read_events(client: RedisClient, positions: Iterable[tuple[str, str]]) -> list[list[Event]]:
    """The events of each (job id, last event id seen) after that id; one round trip."""
    with client.pipeline(transaction=False) as pipe:
        for job_id, after in positions:
            pipe.xrange(keys.events(job_id), min=f"({after}")
        return [[_event(entry) for entry in entries] for entries in pipe.execute()]


def read_published(client: RedisClient, job_id: str) -> Published:
    """What earlier attempts have written."""
    entries = [entry for entry in client.xrange(keys.events(job_id)) if entry[1]["type"] == EventType.DELTA]
    deltas = tuple(_delta(fields) for _, fields in entries)
    return Published(deltas, int(entries[0][0].partition("-")[0]) / 1000 if entries else None)


def _delta(fields: Mapping[str, str]) -> Delta:
    data = json.loads(fields["data"])
    logprobs = tuple(TokenLogprob(**entry) for entry in data.get("logprobs", ()))
    return Delta(data["text"], tuple(json.loads(fields["tokens"])), logprobs)


def _event(entry: Sequence[Any]) -> Event:
    event_id, fields = entry
    return Event(event_id, EventType(fields["type"]), json.loads(fields["data"]))
