"""Joins calls of a conversation and their results where clients, such as Ollama's, send no ids."""

from collections import OrderedDict, defaultdict
from typing import Any

_NO_CALL = "call00000"


def join_calls(messages: list[dict[str, Any]]) -> None:
    """Fill in the ids that loaded messages lack: of calls, and `tool_call_id` of results.

    A result without an id belongs to the first call before it that has none yet: of the function that its `name` is,
    or else of any. A result without a call gets an id, too: chat templates read one.
    """
    calls = _OpenCalls()
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["id"] = calls.open(call.get("id"), call["function"]["name"])
        if message["role"] == "tool":
            message["tool_call_id"] = calls.close(message.get("tool_call_id"), message.get("name"))


class _OpenCalls:
    """The calls without a result. Each step takes the same time, however many there are."""

    def __init__(self) -> None:
        self._count = 0
        self._names: OrderedDict[str, str] = OrderedDict()  # of the functions, by the ids of the calls
        self._ids: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)  # of the calls, by these names

    def open(self, call_id: str | None, name: str) -> str:
        if not call_id:
            call_id = f"call{self._count:05d}"  # nine letters and digits, as Mistral's template requires
        self._count += 1
        self._forget(call_id)
        self._names[call_id] = name
        self._ids[name][call_id] = None
        return call_id

    def close(self, call_id: str | None, name: str | None) -> str:
        if not call_id:
            of_function = self._ids.get(name or "")
            call_id = next(iter(of_function or self._names), _NO_CALL)
        self._forget(call_id)
        return call_id

    def _forget(self, call_id: str) -> None:
        if (name := self._names.pop(call_id, None)) is not None:
            del self._ids[name][call_id]
