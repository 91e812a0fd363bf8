"""What idle slots hold, and how much of it two prompts share."""

import random

from workers.batching.prefix_cache import PrefixCache, common_prefix


def test_the_common_prefix_is_that_of_a_plain_comparison() -> None:
    chance = random.Random(1)
    for _ in range(500):
        first = [chance.randrange(3) for _ in range(chance.randrange(40))]
        second = first[: chance.randrange(41)] + [chance.randrange(3) for _ in range(chance.randrange(10))]
        plain = 0
        while plain < min(len(first), len(second)) and first[plain] == second[plain]:
            plain += 1
        assert common_prefix(first, second) == plain, (first, second)


def test_the_slot_with_the_longest_common_prefix_is_found() -> None:
    cache = PrefixCache()
    cache.leave(1, [1, 2, 3], "me")
    cache.leave(2, [1, 2, 9, 9], "me")
    assert cache.best([1, 2, 9, 8], "me") == (2, 3)
    assert cache.best([7], "me") == (None, 0)


def test_what_one_scope_has_left_is_not_found_by_another() -> None:
    cache = PrefixCache()
    cache.leave(1, [1, 2, 3], "me")
    cache.leave(2, [1], "you")
    assert cache.best([1, 2, 3], "you") == (2, 1)
    assert cache.best([1, 2, 3], "a stranger") == (None, 0)


def test_empty_slots_are_evicted_first_and_then_the_longest_unused() -> None:
    cache = PrefixCache()
    cache.leave(0, [1], "me")
    cache.leave(1, [2], "you")
    cache.touch(0)
    assert sorted(range(3), key=cache.age) == [2, 1, 0]
    cache.drop(1)
    assert cache.cells == 1


def test_a_prefix_that_cannot_be_cut_there_is_shared_as_far_as_it_can() -> None:
    cache = PrefixCache(resumable=lambda slot, tokens: {1: 0, 2: 3}[slot])
    cache.leave(1, [1, 2, 3, 4, 5, 6], "")
    cache.leave(2, [1, 2, 3, 4, 5], "")
    assert cache.best([1, 2, 3, 4, 5, 6, 7], "") == (2, 3)
    cache.drop(2)
    assert cache.best([1, 2, 3, 4, 5, 6, 7], "") == (None, 0)
