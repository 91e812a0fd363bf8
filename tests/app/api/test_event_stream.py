import json

import pytest

from app.api.event_stream import COMMENT, JSONEncoder, TextEncoder, write_event
from app.errors import EngineFailed
from app.jobs.events import decode_entry


def test_a_text_event_holds_its_id_and_the_text_and_nothing_else() -> None:
    entry = decode_entry("17-0", "delta", '{"text": " hi", "logprobs": []}')
    assert TextEncoder().encode(0, entry) == b"id: 17-0\ndata:  hi\n\n"


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
    assert write_event(text) == lines + b"\n"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\r", "\nb"], ["a\n", "b"]),
        (["a\r", "\n", "\nb"], ["a\n", "\nb"]),
        (["a\r", "\n\r", "\nb"], ["a\n", "\n", "b"]),
        (["a\r", "b"], ["a\n", "b"]),
        (["a\n", "\nb"], ["a\n", "\nb"]),
        (["a\r"], ["a\n"]),
    ],
)
def test_a_crlf_in_two_deltas_is_one_end_of_a_line(texts: list[str], expected: list[str]) -> None:
    encoder = TextEncoder()
    written = [encoder.encode(0, decode_entry("17-0", "delta", json.dumps({"text": text}))) for text in texts]
    assert [piece for piece in written if piece] == [write_event(text, event_id="17-0") for text in expected]


def test_a_json_event_has_its_type_and_the_json_of_the_stream() -> None:
    entry = decode_entry("17-1", "end", '{"status":"succeeded","text":"a\\nb"}')
    assert JSONEncoder().encode(0, entry) == b'id: 17-1\nevent: end\ndata: {"status":"succeeded","text":"a\\nb"}\n\n'


def test_a_late_error_is_an_event_with_a_problem_document() -> None:
    head, data = TextEncoder().error(EngineFailed("it broke")).decode().strip().split("\n")
    assert head == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "engine_error"


def test_a_comment_is_no_event() -> None:
    assert COMMENT.startswith(b":") and COMMENT.endswith(b"\n\n")
