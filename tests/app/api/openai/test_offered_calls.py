"""The input of a custom tool, out of the arguments that a model wrote."""

from typing import Any

import pytest

from app.api.openai.call_reader import CallReader
from app.api.openai.offered_calls import CUSTOM, OfferedCallWriter
from app.api.openai.response_object import COMPLETED, ResponseOutputWriter


def items_of(arguments: str) -> list[dict[str, Any]]:
    writer = ResponseOutputWriter("job", CallReader({}, named="patch"), with_logprobs=False)
    offered = OfferedCallWriter(writer, {"patch": {"type": CUSTOM, "name": "patch"}})
    events = [*offered.feed(arguments, ()), *offered.finish(COMPLETED)]
    assert [event["input"] for event in events if event["type"].endswith("input.done")] == [offered.items[0]["input"]]
    return offered.items


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "caf\\u00e9"}', "café"),
        ('{"input": "half a pair: \\ud800"}', "half a pair: ?"),
        ('{"input": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"input": ' + "[" * 50_000 + "]" * 50_000 + "}"),
        ('{"other": "x"}', '{"other": "x"}'),
    ],
)
def test_the_input_is_a_text_that_can_be_encoded(arguments: str, text: str) -> None:
    (item,) = items_of(arguments)
    assert (item["type"], item["input"]) == (CUSTOM, text)
    assert item["input"].encode()
