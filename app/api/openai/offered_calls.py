"""Calls of custom tools and of namespaces in a response, reported as the client has offered these tools.

To the model all of them are functions (`app.api.schemas.openai.response_tools`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from app.api.schemas.openai.response_tools import CUSTOM_INPUT
from app.jobs.job import TokenLogprob

Item = dict[str, Any]
ResponseEvent = dict[str, Any]

CUSTOM = "custom_tool_call"


class OutputWriter(Protocol):
    """Makes items and their events out of the text of a job, as it comes."""

    @property
    def items(self) -> list[Item]: ...

    def feed(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[ResponseEvent]: ...

    def finish(self, status: str) -> Iterator[ResponseEvent]: ...


class OfferedCallWriter:
    """Translates what another writer makes.

    Args:
        calls: the `type`, `name` and `namespace` of the item of a call, by the name by which the model calls the tool.
    """

    def __init__(self, writer: OutputWriter, calls: Mapping[str, Item]) -> None:
        self._writer = writer
        self._calls = calls

    @property
    def items(self) -> list[Item]:
        return [self._translated(item) for item in self._writer.items]

    def feed(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[ResponseEvent]:
        return self._events(self._writer.feed(text, logprobs))

    def finish(self, status: str) -> Iterator[ResponseEvent]:
        return self._events(self._writer.finish(status))

    def _events(self, events: Iterable[ResponseEvent]) -> Iterator[ResponseEvent]:
        for event in events:
            if "item" in event:
                yield {**event, "item": self._translated(event["item"])}
                continue
            item = self._writer.items[event["output_index"]]
            offered = self._calls.get(item.get("name", ""))
            if offered is None:
                yield event
            elif offered["type"] != CUSTOM:
                yield {**event, "name": offered["name"]} if "name" in event else event
            elif "arguments" in event:  # the end of the call: its input is known only now
                place = {"item_id": _id(event["item_id"]), "output_index": event["output_index"]}
                text = _input(event["arguments"])
                yield {"type": f"response.{CUSTOM}_input.delta", **place, "delta": text}
                yield {"type": f"response.{CUSTOM}_input.done", **place, "input": text}

    def _translated(self, item: Item) -> Item:
        offered = self._calls.get(item.get("name", ""))
        if offered is None:
            return item
        translated = {**item, **offered}
        if offered["type"] == CUSTOM:
            del translated["arguments"]
            translated |= {"id": _id(item["id"]), "input": _input(item["arguments"])}
        return translated


def _id(function_call_id: str) -> str:
    return f"ctc_{function_call_id.partition('_')[2]}"


def _input(arguments: str) -> str:
    """Return the text in the arguments; what the model has written instead, where there is none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = value.get(CUSTOM_INPUT) if isinstance(value, dict) else None
    return (
        text.encode(errors="replace").decode() if isinstance(text, str) else arguments
    )  # an escape may be half a pair
