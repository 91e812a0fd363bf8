"""A gap between two texts, in the tokens of a model that was trained to fill it."""

import pytest

from app.errors import UnsupportedParameter
from workers.engines.shared.infill import infill_tokens


class Bytes:
    """Every byte is a token, and 1 begins a text."""

    def __init__(self, infill: tuple[int, int, int] | None) -> None:
        self.infill = infill

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        return [1, *text.encode()] if add_special else list(text.encode())


def test_a_suffix_goes_in_with_the_models_infill_tokens_behind_one_beginning() -> None:
    assert infill_tokens(Bytes((1001, 1002, 1003)), "AB", "C") == [1, 1001, 65, 66, 1002, 67, 1003]


def test_a_model_that_cannot_fill_in_says_so_by_the_name_of_the_field() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        infill_tokens(Bytes(None), "AB", "C")
    assert list(caught.value.errors) == ["params.suffix"]
