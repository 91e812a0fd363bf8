"""The event stream of a job: what clients follow, and what the next worker of the job continues.

An entry of the Redis stream has the fields `type` and `data`, a JSON object: `started {"attempt"}`,
`delta {"text", "logprobs"?}`, `end {"status", "finish_reason"?, "usage"?, "error"?}`. The entry of a delta
has a third field, `tokens`: the ids behind its text, for the worker that takes the job over.

In Python, only this module encodes and decodes events. Scripts (`lua/`) write `started`. They
also end jobs that no worker holds; for the text of such a job's outcome they read its deltas.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from app.jobs import keys
from app.jobs.job import FinishReason, JobError, Status, TokenLogprob, Usage
from app.jobs.record import compact_json

if TYPE_CHECKING:  # the batch loop makes deltas and must not load Redis' client
    from app.jobs.redis_client import RedisClient

FROM_START = "0-0"
EVENT_ID_PATTERN = "^[0-9]{1,19}-[0-9]{1,19}$"  # two unsigned 64-bit numbers, as Redis has it


class EventType(StrEnum):
    STARTED = "started"
    DELTA = "delta"
    END = "end"


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has claimed the job, for the `attempt`-th time."""

    type: ClassVar = EventType.STARTED
    attempt: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the text of a job, and the ids of its tokens."""

    type: ClassVar = EventType.DELTA
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The end of the job. The usage of one that no worker ends is what has been published of it."""

    type: ClassVar = EventType.END
    status: Status
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: JobError | None = None


Event = Started | Delta | End


@dataclass(frozen=True, slots=True)
class EventEntry:
    """An event as it stands in the stream of its job.

    Args:
        id: the Redis stream id. Ids grow, and a reader may resume after any of them.
        event: without the tokens of a delta; only `read_published` reads these.
        data: the JSON that `event` was decoded from, for clients that get it as it is.
    """

    id: str
    event: Event
    data: str


@dataclass(frozen=True, slots=True)
class Published:
    """All deltas that have been written for a job. first_at: Unix seconds of the first one."""

    deltas: tuple[Delta, ...]
    first_at: float | None

    @property
    def tokens(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def is_event_id(text: str) -> bool:
    return re.fullmatch(EVENT_ID_PATTERN, text) is not None


def entry_time(entry_id: str) -> float:
    """Return when an entry was written, in Unix seconds: the first half of its id."""
    return int(entry_id.partition("-")[0]) / 1000


def read_events(client: "RedisClient", positions: Iterable[tuple[str, str]]) -> list[list[EventEntry]]:
    """Read the events of several jobs in one round trip.

    Args:
        positions: for each job its id and the id of an entry; the events after that entry are read.
    """
    with client.pipeline(transaction=False) as pipe:
        for job_id, after in positions:
            pipe.xrange(keys.events(job_id), min=f"({after}")
        return [
            [decode_entry(entry_id, fields["type"], fields["data"]) for entry_id, fields in entries]
            for entries in pipe.execute()
        ]


def read_published(client: "RedisClient", job_id: str) -> Published:
    """Read what earlier attempts have written."""
    entries = [entry for entry in client.xrange(keys.events(job_id)) if entry[1]["type"] == EventType.DELTA]
    deltas = tuple(_delta(json.loads(fields["data"]), tuple(json.loads(fields["tokens"]))) for _, fields in entries)
    return Published(deltas, entry_time(entries[0][0]) if entries else None)


def decode_entry(entry_id: str, event_type: str, data: str) -> EventEntry:
    values = json.loads(data)
    if event_type == EventType.DELTA:
        return EventEntry(entry_id, _delta(values), data)
    if event_type == EventType.STARTED:
        return EventEntry(entry_id, Started(values["attempt"]), data)
    return EventEntry(entry_id, _end(values), data)


def encode_delta(delta: Delta) -> str:
    """Return the `data` of a delta; its tokens are a field of their own."""
    data: dict[str, Any] = {"text": delta.text}
    if delta.logprobs:
        data["logprobs"] = [asdict(entry) for entry in delta.logprobs]
    return compact_json(data)


def encode_end(end: End) -> str:
    return compact_json({name: value for name, value in asdict(end).items() if value is not None})


def _delta(values: dict[str, Any], tokens: tuple[int, ...] = ()) -> Delta:
    return Delta(values["text"], tokens, tuple(TokenLogprob(**entry) for entry in values.get("logprobs", ())))


def _end(values: dict[str, Any]) -> End:
    reason, usage, error = values.get("finish_reason"), values.get("usage"), values.get("error")
    return End(
        status=Status(values["status"]),
        finish_reason=FinishReason(reason) if reason else None,
        usage=Usage(**usage) if usage else None,
        error=JobError(**error) if error else None,
    )
