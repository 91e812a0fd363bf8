"""Where a text may be cut: at special tokens that nothing else can reach into."""

import pytest

from workers.engines.llama.special_split import SpecialSplit, pieces

TEXT = b"a<s>b<s>\n<s><s>"


def test_a_text_is_cut_where_special_tokens_begin() -> None:
    starts = SpecialSplit([b"<s>", b"[/]"]).starts(TEXT)
    assert starts == [1, 5, 9, 12]
    assert pieces(TEXT, starts, specials=2) == [b"a<s>b<s>\n", b"<s><s>"]
    assert pieces(TEXT, starts, specials=1) == [b"a<s>b", b"<s>\n", b"<s>", b"<s>"]
    assert pieces(TEXT, starts, specials=9) == [TEXT]
    assert pieces(b"", []) == [b""]


@pytest.mark.parametrize(
    "others",
    [[b"b<s>"], [b"<s>b"], [b"<s>\n<s>"], [b"s"], [b">\n"], [b"b<"]],
    ids=["ends with it", "begins with it", "holds it", "lies in it", "begins with its end", "ends with its beginning"],
)
def test_no_cut_is_made_where_another_special_token_could_reach_into_it(others: list[bytes]) -> None:
    assert SpecialSplit([b"<s>", *others, b"other"]).starts(TEXT + b"other") in ([], [len(TEXT)])


@pytest.mark.parametrize("text", [b"aba", b"\n", b" <s>"])
def test_no_cut_is_made_at_a_token_that_overlaps_with_itself_or_has_white_space_at_an_end(text: bytes) -> None:
    assert SpecialSplit([text]).starts(text * 3) == []


def test_no_cut_is_made_at_a_token_that_takes_white_space_with_it() -> None:
    assert SpecialSplit([b"<mask>", b"<s>"], stripping=[b"<mask>"]).starts(b"<s> <mask>") == [0]
