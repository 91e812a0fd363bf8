"""Text assembly: UTF-8 characters and stop strings across tokens."""

import random

import pytest

from workers.batching.detokenizer import Detokenizer


def feed_all(stream: Detokenizer, pieces: list[bytes]) -> list[str]:
    texts = []
    for piece in pieces:
        texts.append(stream.feed(piece))
        if stream.stopped:
            return texts
    return [*texts, stream.finish()]


def test_a_character_split_over_tokens_comes_out_whole() -> None:
    stream = Detokenizer()
    euro = "€".encode()
    assert [stream.feed(euro[:1]), stream.feed(euro[1:2]), stream.feed(euro[2:])] == ["", "", "€"]


def test_the_bytes_of_an_unfinished_character_are_dropped_at_the_end() -> None:
    stream = Detokenizer()
    assert stream.feed(b"ab" + "€".encode()[:2]) == "ab"
    assert stream.finish() == ""


def test_a_broken_byte_becomes_a_replacement_character() -> None:
    assert "".join(feed_all(Detokenizer(), [b"a\xff", b"b"])) == "a\ufffdb"


def test_a_stop_string_that_spans_tokens_never_leaks_its_beginning() -> None:
    stream = Detokenizer(["###END"])
    texts = feed_all(stream, [b"hello ##", b"#E", b"ND tail"])
    assert texts == ["hello ", "", ""]
    assert stream.stopped


def test_text_that_only_looked_like_a_stop_string_is_published_later() -> None:
    texts = feed_all(Detokenizer(["###"]), [b"a##", b"b", b"##"])
    assert texts == ["a", "##b", "", "##"]


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert "".join(feed_all(Detokenizer(["xyz", "lo"]), [b"hel", b"lo xyz"])) == "hel"


def test_a_stop_string_with_a_multibyte_character_is_found_when_its_bytes_are_split() -> None:
    smile = "☺".encode()
    assert "".join(feed_all(Detokenizer(["☺!"]), [b"hi ", smile[:2], smile[2:] + b"! more"])) == "hi "


@pytest.mark.parametrize("seed", range(40))
def test_any_split_into_tokens_gives_the_text_before_the_first_stop_string(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab#é☺") for _ in range(40))
    stops = ["".join(rng.choice("ab#é☺") for _ in range(rng.randint(2, 4))) for _ in range(2)]
    data = text.encode()
    cuts = sorted(rng.sample(range(1, len(data)), 12))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))
    assert "".join(feed_all(Detokenizer(stops), pieces)) == text[:first]
