"""Files, in Redis, where every API process on every machine can read them.

A file is text, kept as a list of its lines. Its hash holds its fields, which are written last: without them there is no
file, only the number of bytes that are reserved for it.
"""

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.api.batches.paging import Cut, page
from app.errors import Conflict, FileNotFound, LLMAPIError, StorageFull
from app.jobs import keys
from app.jobs.redis_client import RedisClient, script

LINES_AT_ONCE = 500
UPLOAD_SECONDS = 3600  # lifetime of an upload whose process died
BATCH = "batch"
"""The purpose of a file of requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """created_at, expires_at: Unix seconds."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: int


class FileStore:
    """Reads and changes files.

    max_bytes_per_owner: of all files of an owner, and of what its batches write.
    """

    def __init__(self, client: RedisClient, *, max_bytes_per_owner: int) -> None:
        self._redis = client
        self._max_bytes_per_owner = max_bytes_per_owner
        self._reserve = script(client, "reserve_file")
        self._count = script(client, "count_stored")
        self._delete = script(client, "delete_file")

    def put(self, lines: Iterable[str], *, owner: str, filename: str, size: int, ttl_seconds: int) -> File:
        """Store a file of requests. lines: with their ends. size: in bytes.

        Raises StorageFull, and what `lines` raises.
        """
        now = time.time()
        made = File(
            id=new_file_id(),
            owner=owner,
            filename=filename,
            purpose=BATCH,
            bytes=size,
            created_at=now,
            expires_at=int(now) + ttl_seconds,
        )
        name = keys.file_lines(made.id)
        self._reserve_bytes(made)
        try:
            self._put_lines(name, iter(lines))
        except LLMAPIError:
            self._redis.delete(name, keys.file(made.id))
            raise
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.file(made.id), mapping={field: getattr(made, field) for field in File.__slots__})
            pipe.expire(keys.file(made.id), ttl_seconds)
            pipe.expire(name, ttl_seconds)
            pipe.execute()
        return made

    def raise_if_full(self, owner: str) -> None:
        """Raises StorageFull."""
        stored = self.stored_bytes(owner)
        if stored >= self._max_bytes_per_owner:
            raise self._full(stored)

    def is_full(self, owner: str) -> bool:
        return self.stored_bytes(owner) >= self._max_bytes_per_owner

    def stored_bytes(self, owner: str) -> int:
        """Return the bytes of the owner's files, and of what its batches have written so far."""
        owned = [keys.files_of(owner), keys.batches_of(owner)]
        return int(self._count(keys=owned, args=[keys.file(""), keys.batch("")]))

    def read(self, file_id: str, owner: str | None) -> File:
        """Return a file of this owner; None: of any. Raises FileNotFound."""
        values = self._redis.hgetall(keys.file(file_id))
        if "owner" not in values or owner not in (None, values["owner"]):
            raise FileNotFound(f"no file has the id {file_id[:100]!r}: it never was, or its time is over")
        return _file(values)

    def lines(self, file_id: str, start: int = 0) -> Iterator[list[str]]:
        """Read its lines from the `start`-th on (0 = the first), some at a time."""
        while some := self._redis.lrange(keys.file_lines(file_id), start, start + LINES_AT_ONCE - 1):
            yield some
            start += len(some)

    def list_files(self, owner: str, cut: Cut, purpose: str | None = None) -> tuple[list[File], bool]:
        """Return a page of the owner's files, and whether more come. Raises InvalidRequest."""

        def wanted(values: Mapping[str, str]) -> File | None:
            is_whole = "id" in values  # else it is being uploaded
            return _file(values) if is_whole and purpose in (None, values["purpose"]) else None

        return page(self._redis, keys.files_of(owner), cut, keys.file, wanted)

    def delete(self, file: File) -> None:
        """Delete a file. Raises Conflict while a batch reads it."""
        file_keys = [keys.file(file.id), keys.file_lines(file.id), keys.files_of(file.owner)]
        if not self._delete(keys=file_keys, args=[file.id]):
            raise Conflict("a batch reads this file; cancel the batch or wait for its end, and try again")

    def _reserve_bytes(self, file: File) -> None:
        owned = [keys.files_of(file.owner), keys.batches_of(file.owner)]
        limits = [file.bytes, self._max_bytes_per_owner, str(file.created_at), UPLOAD_SECONDS]
        args = [keys.file(""), keys.batch(""), file.id, *limits]
        stored = int(self._reserve(keys=[keys.file(file.id), *owned], args=args))
        if stored >= 0:
            raise self._full(stored)

    def _full(self, stored: int) -> StorageFull:
        limit = self._max_bytes_per_owner
        detail = f"your files and batches hold {stored} of {limit} bytes (files.max_bytes_per_owner); delete some files"
        return StorageFull(detail)

    def _put_lines(self, name: str, lines: Iterator[str]) -> None:
        while some := list(itertools.islice(lines, LINES_AT_ONCE)):
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(name, *some)
                pipe.expire(name, UPLOAD_SECONDS)
                pipe.execute()


def new_file_id() -> str:
    return f"file-{uuid.uuid4().hex}"


def file_object(file: File) -> dict[str, Any]:
    """Return OpenAI's object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def _file(values: Mapping[str, str]) -> File:
    return File(
        id=values["id"],
        owner=values["owner"],
        filename=values["filename"],
        purpose=values["purpose"],
        bytes=int(values["bytes"]),
        created_at=float(values["created_at"]),
        expires_at=int(values["expires_at"]),
    )
