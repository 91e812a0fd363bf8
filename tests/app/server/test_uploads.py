"""Long bodies: who may send one now, and what the API reads of one."""

import io
from dataclasses import dataclass

import pytest

from app.errors import RequestTimeout
from app.server.uploads import PIECE_BYTES, UploadedBody, UploadSlots


@dataclass
class Client:
    is_late: bool = False


def test_an_address_gets_half_of_the_slots_and_the_others_get_the_rest() -> None:
    slots = UploadSlots(4)
    assert [slots.take(number, "a") for number in range(3)] == [True, True, False]
    assert [slots.take(number, "b") for number in range(3, 5)] == [True, True]
    assert not slots.take(5, "c")
    assert slots.give_back(0)
    assert not slots.give_back(0), "it has none any more"
    assert slots.take(6, "c")


def test_an_address_with_its_share_waits_for_its_own_and_another_for_all() -> None:
    slots = UploadSlots(4)
    for number in range(2):
        slots.take(number, "a")
    slots.take(2, "b")
    assert slots.in_the_way_of("a") == [0, 1]
    assert slots.in_the_way_of("b") == [0, 1, 2]


@pytest.mark.parametrize("length", [6, None])
def test_the_end_of_a_body_is_reported_once(length: int | None) -> None:
    ends: list[None] = []
    body = UploadedBody(
        io.BytesIO(b"a" * PIECE_BYTES + b"bc\nde"),
        PIECE_BYTES + length if length else None,
        Client(),
        lambda: ends.append(None),
    )
    assert (body.read(2), ends) == (b"aa", [])
    assert body.read(PIECE_BYTES - 2) == b"a" * (PIECE_BYTES - 2)
    assert (list(body), len(ends)) == ([b"bc\n", b"de"], 1)
    assert (body.read(), len(ends)) == (b"", 1)


def test_small_pieces_of_a_body_are_taken_from_large_ones() -> None:
    sizes: list[int | None] = []

    class Body(io.BytesIO):
        def read(self, size: int | None = None) -> bytes:
            sizes.append(size)
            return super().read(size)

    length = 3 * PIECE_BYTES
    body = UploadedBody(Body(b"a" * length), length, Client(), lambda: None)
    assert sum(len(piece) for piece in iter(lambda: body.read(64 * 1024), b"")) == length
    assert [size for size in sizes if size != PIECE_BYTES] == []
    assert len(sizes) <= 4


class LateBody(io.BytesIO):
    """A body whose client is too slow."""

    def read(self, size: int | None = None) -> bytes:
        raise ConnectionResetError


def test_a_late_body_raises_once_and_ends() -> None:
    ends: list[None] = []
    body = UploadedBody(LateBody(), 6, Client(is_late=True), lambda: ends.append(None))
    with pytest.raises(RequestTimeout):
        body.read(6)
    assert (body.read(6), body.failed, len(ends)) == (b"", True, 1)


def test_what_is_read_of_a_late_body_after_the_answer_is_no_error_of_the_application() -> None:
    body = UploadedBody(LateBody(), 6, Client(is_late=True), lambda: None)
    body.is_answered = True
    with pytest.raises(ConnectionResetError):
        body.read(6)
    assert body.failed, "gunicorn must not read a second request from here"
