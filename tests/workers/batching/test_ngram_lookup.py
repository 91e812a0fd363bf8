"""Tokens guessed from the text so far, and how likely they are to hold."""

import random
from itertools import islice

from workers.batching.ngram_lookup import NgramLookup


def text(words: str) -> list[int]:
    return list(words.encode())


def test_the_tokens_that_followed_the_same_tokens_before_are_guessed() -> None:
    lookup = NgramLookup(text("the harbour of Varn; the harb"))
    assert bytes(lookup.guesses(12)) == b"our of Varn;"


def test_where_the_last_tokens_are_new_there_is_no_guess() -> None:
    lookup = NgramLookup(text("abcdef"))
    assert not lookup.has_guess
    for number, token in enumerate(b"xbcd"):
        lookup.take(token)
        assert lookup.has_guess == (number == 3), "three tokens that stood together before"


def test_the_last_of_several_occurrences_counts_and_is_followed_while_it_holds() -> None:
    lookup = NgramLookup(text("abc1 abc2 abc"))
    assert bytes(lookup.guesses(1)) == b"2"
    lookup.take(ord("1"))
    assert bytes(lookup.guesses(4)) == b" abc", "it was the other occurrence"


def test_a_repeating_text_is_guessed_beyond_its_end() -> None:
    assert bytes(NgramLookup(text("la la la")).guesses(8)) == b" la la l"


def test_longer_matches_are_trusted_more_and_a_sequence_that_misleads_less() -> None:
    short, long = NgramLookup(text("abc1 abc")), NgramLookup(text("once upon a time1 once upon a time"))
    assert next(long.expected_hits()) > next(short.expected_hits())
    before = next(short.expected_hits())
    for turn in range(5):
        for token in (100 + turn, *b"abc"):
            short.take(token)
    assert next(short.expected_hits()) < before


def test_expected_hits_grow_by_less_than_one_for_each_guess() -> None:
    hits = list(islice(NgramLookup(text("once upon a time, once upon")).expected_hits(), 32))
    assert all(0 < after - before < 1 for before, after in zip([0.0, *hits], hits, strict=False))


def test_every_guess_in_a_random_text_has_followed_the_last_three_tokens_before() -> None:
    chance = random.Random(3)
    tokens = [chance.randrange(4) for _ in range(20)]
    lookup = NgramLookup(tokens)
    for _ in range(500):
        places = [at for at in range(3, len(tokens)) if tokens[at - 3 : at] == tokens[-3:]]
        assert lookup.has_guess == bool(places)
        if places:
            assert lookup.guesses(1)[0] in {tokens[at] for at in places}
        tokens.append(chance.randrange(4))
        lookup.take(tokens[-1])
