import pytest

from workers.engines.shared.token_text import shown_token


@pytest.mark.parametrize(
    ("piece", "shown"),
    [(b" the", " the"), ("日".encode(), "日"), (b"\xf0\x9f", "bytes:\\xf0\\x9f"), (b"a\xe2", "bytes:\\x61\\xe2")],
)
def test_a_part_of_a_character_is_shown_by_its_bytes(piece: bytes, shown: str) -> None:
    assert shown_token(piece) == shown
