"""Notifications over pub/sub: one line for each job that has changed, to the API processes that wait for it.

The scripts `claim`, `publish`, `hand_back`, `cancel` and `reap` send them (`lua/notify.lua`); `add_event` formats an
event's line. A record names the channels of the processes that listen: of the one that made the job and waits for it,
and of those that came later (`lua/follow.lua`).

A line is one of three: the id of the job alone; the job's id, the id of the previous event, and an event of its
stream, in this order; or, once the job has ended, its whole record as a JSON list.
"""

import json
from collections.abc import Iterator

from app.jobs.events import EventEntry, decode_entry
from app.jobs.job import Job
from app.jobs.record import job_from_record


class Notification:
    """One line. Its JSON is decoded only on request: a wait may be over."""

    __slots__ = ("_line", "job_id")

    def __init__(self, line: str) -> None:
        self._line = line
        self.job_id = line[2 : line.index('"', 2)] if line.startswith("[") else line.partition(" ")[0]

    def record(self) -> Job | None:
        """Decode the record of a job that has ended; None where the line holds none."""
        if not self._line.startswith("["):
            return None
        return job_from_record([value or None for value in json.loads(self._line)])  # Lua's false stands for null

    def event(self) -> tuple[str, EventEntry] | None:
        """Decode the event, and the id of the entry before it; None where the line holds none."""
        if self._line.startswith("[") or " " not in self._line:
            return None
        _, before, *entry = self._line.split(" ", 4)
        return before, decode_entry(*entry)


def notifications_in(message: str) -> Iterator[Notification]:
    return map(Notification, message.split("\n"))
