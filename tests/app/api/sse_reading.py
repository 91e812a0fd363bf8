"""Read server-sent events as a browser does."""

import json
from dataclasses import dataclass
from typing import Any

from werkzeug.test import TestResponse


@dataclass(frozen=True)
class Received:
    """One event. data: its lines, joined."""

    id: str | None
    name: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def received(response: TestResponse) -> list[Received]:
    return parse(response.get_data(as_text=True))


def parse(text: str) -> list[Received]:
    return [event for block in text.split("\n\n") if (event := _event(block)) is not None]


def _event(block: str) -> Received | None:
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        return None
    return Received(fields.get("id", [None])[0], fields.get("event", ["message"])[0], "\n".join(fields["data"]))
