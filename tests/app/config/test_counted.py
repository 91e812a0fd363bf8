"""Numbers with their nouns."""

import pytest

from app.config.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ["job"], "0 jobs"),
        (1, ["job"], "1 job"),
        (2, ["entry", "entries"], "2 entries"),
        (1, ["try", "tries"], "1 try"),
    ],
)
def test_one_is_singular_and_any_other_number_plural(number: int, words: list[str], text: str) -> None:
    assert counted(number, *words) == text
