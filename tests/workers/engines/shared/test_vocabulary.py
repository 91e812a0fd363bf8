"""What the vocabularies of all families have in common."""

from collections.abc import Sequence
from typing import Any

import pytest

from app.errors import InvalidRequest, UnsupportedParameter
from app.jobs.sampling import SamplingParams
from workers.engines.shared.vocabulary import Vocabulary, shown_token, without_second_bos


class Bytes(Vocabulary):
    """Every byte is a token, and 1 begins a text."""

    def __init__(self, infill: tuple[int, int, int] | None) -> None:
        self.size = 2000
        self.infill = infill

    def tokenize(self, text: str, *, add_special: bool = True, most: int | None = None) -> list[int]:
        return [1, *text.encode()] if add_special else list(text.encode())

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> str:
        return bytes(tokens).decode()

    def text(self, token: int) -> str:
        return chr(token)


def test_a_suffix_is_added_with_the_models_infill_tokens_after_one_begin_token() -> None:
    assert Bytes((1001, 1002, 1003)).infill_tokens("AB", "C") == [1, 1001, 65, 66, 1002, 67, 1003]


def test_a_model_that_cannot_fill_in_refuses_by_the_name_of_the_field() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        Bytes(None).infill_tokens("AB", "C")
    assert list(caught.value.errors) == ["params.suffix"]


@pytest.mark.parametrize(
    ("name", "value", "token"),
    [("logit_bias", {7: 1.0, 2000: 1.0}, 2000), ("logit_bias", {-1: 1.0}, -1), ("stop_token_ids", (7, 10**7), 10**7)],
)
def test_a_parameter_that_names_an_unknown_token_is_refused_with_the_token_and_the_range(
    name: str, value: Any, token: int
) -> None:
    Bytes(None).check_named(SamplingParams(logit_bias={1999: 1.0}, stop_token_ids=(0, 1999)))
    with pytest.raises(InvalidRequest) as caught:
        Bytes(None).check_named(SamplingParams(**{name: value}))
    reason = f"there is no token {token}: ids go from 0 to 1999"
    assert caught.value.detail == f"params.{name} names an unknown token: {reason}"
    assert caught.value.errors == {f"params.{name}": [reason]}


@pytest.mark.parametrize(
    ("piece", "shown"),
    [(b" the", " the"), ("日".encode(), "日"), (b"\xf0\x9f", "bytes:\\xf0\\x9f"), (b"a\xe2", "bytes:\\x61\\xe2")],
)
def test_a_part_of_a_character_is_shown_by_its_bytes(piece: bytes, shown: str) -> None:
    assert shown_token(piece) == shown


@pytest.mark.parametrize(("tokens", "kept"), [([1, 1, 5], [1, 5]), ([1, 5, 1], [1, 5, 1]), ([1], [1]), ([], [])])
def test_a_begin_token_that_a_template_wrote_is_not_doubled(tokens: list[int], kept: list[int]) -> None:
    assert without_second_bos(tokens, 1) == kept
