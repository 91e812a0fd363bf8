"""Reads the audit stream: an entry for each ended job, as `lua/audit.lua` writes it. It has no prompt and no answer."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from app.jobs import keys
from app.jobs.events import entry_time, is_event_id
from app.jobs.redis_client import RedisClient

FIRST = "0-0"
_ENTRIES_PER_CALL = 1000
_TEXTS = ("job", "owner", "tenant", "key_name", "label", "kind", "model", "outcome", "error", "source")
_NUMBERS = ("attempts", "prompt_tokens", "cached_tokens", "completion_tokens")


def entries_after(client: RedisClient, after: str) -> Iterator[dict[str, Any]]:
    """Yield the entries after an id, oldest first, until there is none. Each has its `id`, for the next call."""
    while entries := client.xrange(keys.AUDIT, min=f"({after}", count=_ENTRIES_PER_CALL):
        for entry_id, fields in entries:
            yield _entry(entry_id, fields)
        after = entries[-1][0]


def may_be_missing_after(client: RedisClient, after: str) -> bool:
    """Return whether entries after this id may be removed already, as there were more than `audit.keep`."""
    if not client.exists(keys.AUDIT):
        return False
    info = client.execute_command("XINFO", "STREAM", keys.AUDIT)
    has_lost_some, first = info["entries-added"] > info["length"], info["first-entry"]
    return has_lost_some and (first is None or _order(after) < _order(first[0]))


def position(since: str) -> str:
    """Return the id after which entries are read, from an id or a time in ISO 8601 (UTC where it has no zone).

    Raises ValueError.
    """
    if is_event_id(since):
        return since
    time = datetime.fromisoformat(since)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    milliseconds = int(time.timestamp() * 1000)
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds > 0 else FIRST


def _entry(entry_id: str, fields: dict[str, str]) -> dict[str, Any]:
    return {
        "id": entry_id,
        "ended_at": _iso(entry_time(entry_id)),
        **{name: fields[name] for name in _TEXTS},
        "created_at": _iso(float(fields["created_at"])),
        "started_at": _iso(float(fields["started_at"])) if fields["started_at"] else None,
        **{name: int(fields[name]) for name in _NUMBERS},
        "compute_seconds": float(fields["compute_seconds"]),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _order(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))
