"""The queue as a page shows it: all jobs as lines without contents, with more of those of the page's own key."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.api.queue_estimate import QueueEstimate
from app.jobs.queue_positions import QueuePositions
from app.jobs.queue_window import JobLine, QueueWindow, read_window
from app.jobs.redis_client import RedisClient

SHOWN = 100  # waiting jobs, and running ones; the others are counted
_NEWEST_SHARE = 0.4  # of a speed: about the last two seconds count
_KEY_BYTES = 6  # of a line of another key: nothing leads from it to the id of the job


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who watches: an owner with its tenant, or an admin, who `sees_all`."""

    owner: str
    tenant: str
    sees_all: bool = False


@dataclass(frozen=True, slots=True)
class QueueReading:
    """speeds: tokens per second lately, by job. starts: seconds until each of the first jobs should start.

    shown: what each viewer is shown of it, made when it is first asked for.
    """

    window: QueueWindow
    read_at: float
    speeds: Mapping[str, float]
    starts: list[float | None]
    shown: dict[Viewer, Mapping[str, Any]] = field(default_factory=dict)


class QueueReader:
    """Makes one reading after another. Not for several threads at once."""

    def __init__(self, client: RedisClient, model: str, estimate: QueueEstimate, positions: QueuePositions) -> None:
        self._redis = client
        self._model = model
        self._estimate = estimate
        self._positions = positions
        self._last: QueueReading | None = None

    def __call__(self) -> QueueReading:
        """Raises redis.RedisError."""
        last = self._last
        first = self._positions.first(self._model, SHOWN)
        window = read_window(self._redis, self._model, list(first), SHOWN, last.window if last else None)
        now = time.time()
        starts = [self._estimate.seconds_until_start(first[line.id]) for line in window.first]
        self._last = QueueReading(window, now, _speeds(window, now, last), starts)
        return self._last


def show(reading: QueueReading, viewer: Viewer) -> Mapping[str, Any]:
    """Return the sections of the view: `waiting` and `running` have keys of `rows`, in their order."""
    if viewer not in reading.shown:
        window = reading.window
        lines = {_key(line, viewer): line for line in (*window.active, *window.first)}
        reading.shown[viewer] = {
            "counts": {"waiting": window.waiting, "running": window.running, "scheduled": window.scheduled},
            "waiting": [_key(line, viewer) for line in window.first],
            "running": [_key(line, viewer) for line in window.active],
            "starts": [
                None if seconds is None else round(seconds, 1 if seconds < 10 else 0) for seconds in reading.starts
            ],
            "rows": {key: _row(line, viewer, reading) for key, line in lines.items()},
        }
    return reading.shown[viewer]


def _may_open(line: JobLine, viewer: Viewer) -> bool:
    return viewer.sees_all or line.owner == viewer.owner


def _key(line: JobLine, viewer: Viewer) -> str:
    """The id of a job that may be opened; else a digest, from which the id cannot be guessed."""
    if _may_open(line, viewer):
        return line.id
    return hashlib.blake2b(line.id.encode(), digest_size=_KEY_BYTES).hexdigest()


def _row(line: JobLine, viewer: Viewer, reading: QueueReading) -> Mapping[str, Any]:
    row: dict[str, Any] = {
        "priority": line.priority,
        "kind": line.kind,
        "created_at": round(line.created_at, 3),
        "attempt": line.attempt,
    }
    if line.id in reading.speeds:
        row |= {"started_at": line.started_at, "tokens": line.tokens, "speed": round(reading.speeds[line.id], 1)}
    if viewer.sees_all or line.tenant == viewer.tenant:
        row["tenant"] = line.key_name or line.tenant
    if _may_open(line, viewer):
        row |= {"own": line.owner == viewer.owner, "open": True, "canceling": line.is_canceling}
    return row


def _speeds(window: QueueWindow, now: float, last: QueueReading | None) -> Mapping[str, float]:
    """Return the speed of each running job, smoothed: what no client follows is written in larger pieces."""
    if last is None:
        return {line.id: 0.0 for line in window.active}
    tokens = {line.id: line.tokens for line in last.window.active}
    seconds = max(0.1, now - last.read_at)
    speeds = {}
    for line in window.active:
        before = last.speeds.get(line.id, 0.0)
        lately = (line.tokens - tokens.get(line.id, line.tokens)) / seconds
        speeds[line.id] = before + _NEWEST_SHARE * (lately - before)
    return speeds
