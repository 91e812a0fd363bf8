"""Pages of an owner's files and batches: lists whose entries may have expired, read from after one of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.api.request_parser import invalid_request
from app.jobs.redis_client import RedisClient

_READ_AT_ONCE = 100

Entry = TypeVar("Entry")
Hash = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Which page. after: the id of the last entry before it."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def page(
    client: RedisClient, index: str, cut: Cut, key: Callable[[str], str], entry: Callable[[Hash], Entry | None]
) -> tuple[list[Entry], bool]:
    """Return the entries of a page, and whether more come after it. Expired entries are removed from the index.

    key: of an entry's hash, by its id. entry: made of the hash; None for an entry that is not wanted.

    Raises InvalidRequest where `after` is none of them.
    """
    entries: list[Entry] = []
    gone: list[str] = []
    start = _start(client, index, cut)
    while len(entries) <= cut.limit:
        ids = client.zrange(index, start, start + _READ_AT_ONCE - 1, desc=cut.newest_first)
        if not ids:
            break
        for entry_id, values in zip(ids, _read(client, map(key, ids)), strict=True):
            if not values:
                gone.append(entry_id)
            elif (made := entry(values)) is not None:
                entries.append(made)
        start += len(ids)
    if gone:
        client.zrem(index, *gone)
    return entries[: cut.limit], len(entries) > cut.limit


def list_object(entries: Sequence[Mapping[str, Any]], has_more: bool) -> dict[str, Any]:
    """Return OpenAI's list."""
    first, last = (entries[0]["id"], entries[-1]["id"]) if entries else (None, None)
    return {"object": "list", "data": entries, "first_id": first, "last_id": last, "has_more": has_more}


def _start(client: RedisClient, index: str, cut: Cut) -> int:
    if cut.after is None:
        return 0
    rank = client.zrevrank(index, cut.after) if cut.newest_first else client.zrank(index, cut.after)
    if rank is None:
        raise invalid_request({"after": ["Must be the id of an entry of this list."]})
    return rank + 1


def _read(client: RedisClient, names: Iterable[str]) -> list[Hash]:
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(name)
        return pipe.execute()
