import json

import pytest

from app.api import sse
from app.errors import EngineFailed
from app.jobs.events import Event, EventType


def test_a_text_event_holds_its_id_and_the_text_and_nothing_else() -> None:
    event = Event("17-0", EventType.DELTA, {"text": " hi", "logprobs": []})
    assert sse.text_event(event) == b"id: 17-0\ndata:  hi\n\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb", b"data: a\ndata: b\n"),
        ("a\r\nb", b"data: a\ndata: b\n"),
        ("a\rb", b"data: a\ndata: b\n"),
        ("\n", b"data: \ndata: \n"),
        ("\n\n", b"data: \ndata: \ndata: \n"),
        ("a\x0b\x85\u2028b", "data: a\x0b\x85\u2028b\n".encode()),
        ("id: 3", b"data: id: 3\n"),
        ("é😀", "data: é😀\n".encode()),
    ],
)
def test_each_line_of_a_text_is_a_data_line(text: str, lines: bytes) -> None:
    assert sse.encode(text) == lines + b"\n"


def test_a_json_event_names_its_type() -> None:
    event = Event("17-1", EventType.END, {"status": "succeeded", "text": "a\nb"})
    assert sse.json_event(event) == b'id: 17-1\nevent: end\ndata: {"status":"succeeded","text":"a\\nb"}\n\n'


def test_a_late_error_is_an_event_with_a_problem_document() -> None:
    head, data = sse.error_event(EngineFailed("it broke")).decode().strip().split("\n")
    assert head == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "engine_error"


def test_a_comment_is_no_event() -> None:
    assert sse.COMMENT.startswith(b":") and sse.COMMENT.endswith(b"\n\n")
