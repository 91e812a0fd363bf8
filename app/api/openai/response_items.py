"""The output of a response as it comes: items, and the events that tell how they grow."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.api.openai.logprobs import chat_logprobs
from app.api.openai.tool_calls import CallBegins, Reader, Words, call_id
from app.jobs.job import TokenLogprob

Item = dict[str, Any]
Event = dict[str, Any]

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


class ResponseOutputWriter:
    """Takes the text of a job and makes items of it: a message, function calls.

    Each of its events is `{type, ...}`; whoever sends them numbers them.
    """

    def __init__(self, job_id: str, reader: Reader, *, tells_logprobs: bool) -> None:
        self.items: list[Item] = []
        self._job_id = job_id
        self._reader = reader
        self._tells_logprobs = tells_logprobs
        self._unsent: list[dict[str, Any]] = []
        self._calls = 0

    def feed(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Event]:
        if self._tells_logprobs:
            self._unsent += chat_logprobs(logprobs)["content"]
        for piece in self._reader.feed(text):
            yield from self._take(piece)

    def finish(self, status: str) -> Iterator[Event]:
        """status: of the last item. An answer that is complete has a message, if only an empty one."""
        for piece in self._reader.finish():
            yield from self._take(piece)
        if not self.items and status == COMPLETED:
            yield from self._begin_message()
        yield from self._close(status)

    def _take(self, piece: Any) -> Iterator[Event]:
        if isinstance(piece, Words):
            if self._open_kind != "message":
                yield from self._close(COMPLETED)
                yield from self._begin_message()
            yield self._say(piece.text)
        elif isinstance(piece, CallBegins):
            yield from self._close(COMPLETED)
            yield self._begin_call(piece.name)
        else:
            self.items[-1]["arguments"] += piece.text
            yield self._event("function_call_arguments.delta", delta=piece.text)

    @property
    def _open_kind(self) -> str | None:
        if not self.items or self.items[-1]["status"] != IN_PROGRESS:
            return None
        return str(self.items[-1]["type"])

    def _begin_message(self) -> Iterator[Event]:
        head = {"id": self._id("msg"), "type": "message", "role": "assistant", "status": IN_PROGRESS}
        self.items.append({**head, "content": [_text("", [])]})
        yield self._item_event("added", {**head, "content": []})
        yield self._event("content_part.added", content_index=0, part=_text("", []))

    def _say(self, text: str) -> Event:
        logprobs, self._unsent = self._unsent, []
        (part,) = self.items[-1]["content"]
        part["text"] += text
        part["logprobs"] += logprobs
        return self._event("output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _begin_call(self, name: str) -> Event:
        call = {
            "id": self._id("fc"),
            "type": "function_call",
            "call_id": call_id(self._job_id, self._calls),
            "name": name,
            "arguments": "",
            "status": IN_PROGRESS,
        }
        self._calls += 1
        self.items.append(call)
        return self._item_event("added", dict(call))

    def _close(self, status: str) -> Iterator[Event]:
        kind = self._open_kind
        if kind is None:
            return
        item = self.items[-1]
        item["status"] = status
        if kind == "message":
            (part,) = item["content"]
            part["logprobs"] += self._unsent
            self._unsent = []
            told = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("output_text.done", content_index=0, **told)
            yield self._event("content_part.done", content_index=0, part=part)
        else:
            yield self._event("function_call_arguments.done", name=item["name"], arguments=item["arguments"])
        yield self._item_event("done", item)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._job_id.replace('-', '')}{len(self.items)}"

    def _item_event(self, what: str, item: Item) -> Event:
        return {"type": f"response.output_item.{what}", "output_index": len(self.items) - 1, "item": item}

    def _event(self, kind: str, **told: Any) -> Event:
        item_id, output_index = self.items[-1]["id"], len(self.items) - 1
        return {"type": f"response.{kind}", "item_id": item_id, "output_index": output_index, **told}


def _text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
