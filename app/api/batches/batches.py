"""The record of a batch, in Redis: which of its lines have been opened, and how many have a result.

A line is not opened yet (`next_line` or later), open (its number in a set), or done (its result is in the output or
among the errors). It takes each of these steps once, however often processes try.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from app.api.batches.batch import Batch, LineResult
from app.api.batches.files import File, new_file_id
from app.api.batches.input import Inspection
from app.api.batches.paging import Cut, page
from app.errors import BatchNotFound, FileNotFound
from app.jobs import keys
from app.jobs.principal import Principal
from app.jobs.redis_client import RedisClient, script

DRIVER_SECONDS = 5  # until another process takes over from a driver that is gone
_RECORDED_AT_ONCE = 1_000_000  # characters: Redis does nothing else meanwhile


class BatchStore:
    """Reads and changes the batches of one model's service."""

    def __init__(self, client: RedisClient, *, model: str, ttl_seconds: int) -> None:
        """ttl_seconds: how long an ended batch is kept."""
        self._redis = client
        self._model = model
        self._ttl_seconds = ttl_seconds
        self._create = script(client, "batch_create")
        self._open_lines = script(client, "batch_open_lines")
        self._record_results = script(client, "batch_record_results")
        self._close = script(client, "batch_close")
        self._finish = script(client, "batch_finish")
        self._lock_driver = script(client, "batch_lock_driver")

    def create(
        self,
        file: File,
        principal: Principal,
        *,
        endpoint: str,
        completion_window: str,
        window_seconds: int,
        not_before: float | None,
        files_ttl_seconds: int,
        metadata: Mapping[str, str] | None,
        inspected: Inspection,
    ) -> Batch:
        """Create a batch of the owner's file. A batch whose file has faults fails at once.

        Args:
            not_before: Unix seconds before which no line is submitted; the window begins then.

        Raises:
            FileNotFound: the file has been deleted meanwhile.
        """
        now = time.time()
        values: dict[str, str | int | float] = {
            "id": f"batch_{uuid.uuid4().hex}",
            **principal.to_fields(),
            "model": self._model,
            "endpoint": endpoint,
            "input_file_id": file.id,
            "output": new_file_id(),
            "errors": new_file_id(),
            "completion_window": completion_window,
            "created_at": now,
            "expires_at": max(now, not_before or 0.0) + window_seconds,
            "files_ttl": files_ttl_seconds,
            "metadata": json.dumps(metadata),
            "lines": inspected.lines,
            "next_line": 0,
            "total": inspected.requests,
        }
        if not_before is not None:
            values["not_before"] = not_before
        if inspected.faults:
            return self._fail(values | {"status": "failed", "failed_at": now, "faults": json.dumps(inspected.faults)})
        values |= {"status": "in_progress", "in_progress_at": now}
        batch_id = str(values["id"])
        created = self._create(
            keys=[
                keys.file(file.id),
                keys.file_lines(file.id),
                keys.batch(batch_id),
                keys.batches_of(principal.owner),
                keys.unfinished(self._model),
            ],
            args=[batch_id, str(now), *(part for pair in values.items() for part in pair)],
        )
        if not created:
            raise FileNotFound(f"the file {file.id!r} has been deleted meanwhile")
        return self.read(batch_id, principal.owner)

    def read(self, batch_id: str, owner: str | None) -> Batch:
        """Return a batch of this owner; None: of any. Raises BatchNotFound."""
        batch = self.find(batch_id)
        if batch is None or owner not in (None, batch.owner):
            raise BatchNotFound(f"no batch has the id {batch_id[:100]!r}: it never was, or its time is over")
        return batch

    def find(self, batch_id: str) -> Batch | None:
        values = self._redis.hgetall(keys.batch(batch_id))
        return Batch(values) if values else None

    def list_batches(self, owner: str, cut: Cut) -> tuple[list[Batch], bool]:
        """Return a page of the owner's batches, and whether more come. Raises InvalidRequest."""
        return page(self._redis, keys.batches_of(owner), cut, keys.batch, Batch)

    def unfinished(self) -> list[str]:
        """Return the ids of batches that have not ended, oldest first."""
        return self._redis.zrange(keys.unfinished(self._model), 0, -1)

    def lock_driver(self, name: str) -> bool:
        """Return whether the process `name` drives for the next `DRIVER_SECONDS`. Two drivers only waste work."""
        return bool(self._lock_driver(keys=[keys.driver(self._model)], args=[name, DRIVER_SECONDS]))

    def open_lines(self, batch: Batch) -> list[int]:
        """Return the numbers of open lines (0 = the first of the file), in order."""
        return sorted(map(int, self._redis.smembers(keys.batch_open(batch.id))))

    def lines(self, batch: Batch, numbers: Sequence[int]) -> list[str]:
        """Read these lines of the file."""
        with self._redis.pipeline(transaction=False) as pipe:
            for number in numbers:
                pipe.lindex(keys.file_lines(batch.input_file_id), number)
            return pipe.execute()

    def next_lines(self, batch: Batch, count: int) -> list[str]:
        """Read lines that are not opened yet."""
        start = batch.next_line
        return self._redis.lrange(keys.file_lines(batch.input_file_id), start, start + count - 1)

    def open(self, batch: Batch, lines: Sequence[str]) -> list[int]:
        """Open lines from `next_lines`. Returns their numbers; none where another process has opened them."""
        numbers = [number for number, text in enumerate(lines, batch.next_line) if text.strip()]
        end = batch.next_line + len(lines)
        opened = self._open_lines(
            keys=[keys.batch(batch.id), keys.batch_open(batch.id)], args=[batch.next_line, end, *numbers]
        )
        if not opened:
            return []
        batch.next_line = end
        return numbers

    def record_results(self, batch: Batch, results: Sequence[LineResult]) -> None:
        """Write the results of lines, some at a time. Those of lines that have a result already are dropped."""
        some: list[LineResult] = []
        for line in results:
            some.append(line)
            if sum(len(one.text) for one in some) > _RECORDED_AT_ONCE:
                self._record_some(batch, some)
                some = []
        if some:
            self._record_some(batch, some)

    def close(self, batch: Batch, ending: str) -> None:
        """Open no more of its lines. ending: `cancelled`, `expired`, or `failed`: the owner's storage is full."""
        field = "cancelling_at" if ending == "cancelled" else "finalizing_at"
        self._close(keys=[keys.batch(batch.id)], args=[ending, field, str(time.time())])

    def finish(self, batch: Batch) -> None:
        """End a batch if every line has a result."""
        output, errors = batch.output_file_id, batch.error_file_id
        self._finish(
            keys=[
                keys.batch(batch.id),
                keys.batch_open(batch.id),
                keys.unfinished(self._model),
                keys.files_of(batch.owner),
                keys.file(batch.input_file_id),
                keys.file_lines(batch.input_file_id),
                keys.file(output),
                keys.file_lines(output),
                keys.file(errors),
                keys.file_lines(errors),
            ],
            args=[
                batch.id,
                batch.owner,
                str(time.time()),
                max(self._ttl_seconds, batch.files_ttl_seconds),
                batch.files_ttl_seconds,
                output,
                errors,
                f"{batch.id}_output.jsonl",
                f"{batch.id}_error.jsonl",
            ],
        )

    def drop(self, batch_id: str) -> None:
        """Remove a batch whose record is gone from the unfinished ones."""
        self._redis.zrem(keys.unfinished(self._model), batch_id)

    def _record_some(self, batch: Batch, results: Sequence[LineResult]) -> None:
        output, errors = keys.file_lines(batch.output_file_id), keys.file_lines(batch.error_file_id)
        self._record_results(
            keys=[keys.batch(batch.id), keys.batch_open(batch.id), output, errors],
            args=[
                part
                for line in results
                for part in (line.number, "failed" if line.has_failed else "completed", line.text, *line.tokens)
            ],
        )

    def _fail(self, values: Mapping[str, str | int | float]) -> Batch:
        batch = Batch({name: str(value) for name, value in values.items()})
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.batch(batch.id), mapping=dict[Any, Any](values))
            pipe.expire(keys.batch(batch.id), self._ttl_seconds)
            pipe.zadd(keys.batches_of(batch.owner), {batch.id: batch.created_at})
            pipe.execute()
        return batch
