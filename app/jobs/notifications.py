"""What a hint says: a line for each job with news (`lua/publish.lua`, `lua/add_event.lua`).

A line is the job's id; or an event of its stream, behind the id of the event before it; or the whole record of a job
that has ended, as a JSON list.
"""

import json
from collections.abc import Iterator

from app.jobs.events import Event, EventType
from app.jobs.job import Job
from app.jobs.record import job_from_record


class Notification:
    """Only as much of it is read as is asked for, as most hints are for other processes."""

    __slots__ = ("_line", "job_id")

    def __init__(self, line: str) -> None:
        self._line = line
        self.job_id = line[2 : line.index('"', 2)] if line.startswith("[") else line.partition(" ")[0]

    def record(self) -> Job | None:
        """The record of a job that has ended, where the line is one."""
        if not self._line.startswith("["):
            return None
        return job_from_record([value or None for value in json.loads(self._line)])  # Lua's false stands for null

    def event(self) -> tuple[str, Event] | None:
        """The id of the event before it, and an event, where the line is one."""
        if self._line.startswith("[") or " " not in self._line:
            return None
        _, after, event_id, event_type, data = self._line.split(" ", 4)
        return after, Event(event_id, EventType(event_type), json.loads(data))


def notifications_in(hint: str) -> Iterator[Notification]:
    return map(Notification, hint.split("\n"))
