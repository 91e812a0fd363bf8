"""A job's event stream: what a client follows, and where a worker finds what has been published already.

An entry is `{type, data}`: `started {"attempt"}`, `delta {"text", "logprobs"?}`, `end {"status", "finish_reason"?,
"usage"?, "error"?}`. A `delta` also holds `tokens`, the ids behind its text, for the worker that takes the job over.
The ids are Redis stream ids: they grow, and reading may resume after any of them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.contract import keys
from app.contract.redis_client import RedisClient

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


def is_event_id(text: str) -> bool:
    return bool(_ID.match(text))


def read_many(client: RedisClient, positions: Iterable[tuple[str, str]]) -> list[list[Event]]:
    """The events of each (job id, last event id seen) after that id; one round trip."""
    with client.pipeline(transaction=False) as pipe:
        for job_id, after in positions:
            pipe.xrange(keys.events(job_id), min=f"({after}")
        return [[_event(entry) for entry in entries] for entries in pipe.execute()]


def published_tokens(client: RedisClient, job_id: str) -> tuple[list[int], str]:
    """Token ids and text that earlier attempts have published."""
    tokens: list[int] = []
    texts: list[str] = []
    for _, fields in client.xrange(keys.events(job_id)):
        if fields["type"] == EventType.DELTA:
            tokens += json.loads(fields["tokens"])
            texts.append(json.loads(fields["data"])["text"])
    return tokens, "".join(texts)


def _event(entry: Sequence[Any]) -> Event:
    event_id, fields = entry
    return Event(event_id, EventType(fields["type"]), json.loads(fields["data"]))
