"""Tokens left in free slots by ended sequences, for reuse by prompts with the same prefix."""

from collections.abc import Sequence

MIN_SHARED_TOKENS = 32  # copying a prefix costs about as much as computing so many tokens of a small model


class PrefixCache:
    """The tokens in each free slot. Evicts the least recently used."""

    def __init__(self) -> None:
        self._tokens: dict[int, Sequence[int]] = {}
        self._left_at: dict[int, int] = {}
        self._clock = 0

    @property
    def cells(self) -> int:
        """Cache cells held by free slots."""
        return sum(map(len, self._tokens.values()))

    def leave(self, slot: int, tokens: Sequence[int]) -> None:
        self._tokens[slot] = tokens
        self.touch(slot)

    def touch(self, slot: int) -> None:
        """Count the slot as just used."""
        self._clock += 1
        self._left_at[slot] = self._clock

    def drop(self, slot: int) -> None:
        self._tokens.pop(slot, None)
        self._left_at.pop(slot, None)

    def clear(self) -> None:
        self._tokens.clear()
        self._left_at.clear()

    def tokens(self, slot: int | None) -> Sequence[int]:
        return () if slot is None else self._tokens.get(slot, ())

    def age(self, slot: int) -> int:
        """Return a number that orders slots for eviction: empty ones first, then the least recently used."""
        return self._left_at.get(slot, 0)

    def best(self, tokens: Sequence[int]) -> tuple[int | None, int]:
        """Return (slot, tokens shared) of the idle slot with the longest common prefix; (None, 0): there is none."""
        best: tuple[int | None, int] = (None, 0)
        for slot, held in self._tokens.items():
            shared = common_prefix(held, tokens)
            if shared > best[1]:
                best = (slot, shared)
        return best


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common prefix of two token lists."""
    least, most = 0, min(len(first), len(second))
    if first[:most] == second[:most]:
        return most
    while most - least > 1:  # equal up to `least`, not up to `most`: slices compare in C
        middle = (least + most) // 2
        if first[least:middle] == second[least:middle]:
            least = middle
        else:
            most = middle
    return least
