"""Tokens left in free slots by ended sequences, for reuse by prompts of the same scope with the same prefix."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

MIN_SHARED_TOKENS = 32  # copying a prefix costs about as much as computing so many tokens of a small model


class _Held(NamedTuple):
    tokens: Sequence[int]
    scope: str


Resumable = Callable[[int, int], int]
"""(slot, tokens of it that a prompt shares) -> how many of them it can continue after: `CheckpointCache.resumable`."""


class PrefixCache:
    """The tokens in each free slot. Evicts the least recently used. resumable: None = a prompt continues after any."""

    def __init__(self, resumable: Resumable | None = None) -> None:
        self._resumable = resumable
        self._held: dict[int, _Held] = {}
        self._left_at: dict[int, int] = {}
        self._clock = 0

    @property
    def cells(self) -> int:
        """Cache cells held by free slots."""
        return sum(len(held.tokens) for held in self._held.values())

    def leave(self, slot: int, tokens: Sequence[int], scope: str) -> None:
        """Record what an ended sequence leaves in its slot, for jobs of its scope (`RunnerJob.scope`)."""
        self._held[slot] = _Held(tokens, scope)
        self.touch(slot)

    def touch(self, slot: int) -> None:
        """Count the slot as just used."""
        self._clock += 1
        self._left_at[slot] = self._clock

    def drop(self, slot: int) -> None:
        self._held.pop(slot, None)
        self._left_at.pop(slot, None)

    def clear(self) -> None:
        self._held.clear()
        self._left_at.clear()

    def tokens(self, slot: int | None) -> Sequence[int]:
        return self._held[slot].tokens if slot in self._held else ()

    def age(self, slot: int) -> int:
        """Return a number that orders slots for eviction: empty ones first, then the least recently used."""
        return self._left_at.get(slot, 0)

    def best(self, tokens: Sequence[int], scope: str) -> tuple[int | None, int]:
        """Return (slot, tokens shared) of the scope's idle slot with the longest usable prefix; (None, 0): none."""
        best: tuple[int | None, int] = (None, 0)
        for slot, held in self._held.items():
            shared = common_prefix(held.tokens, tokens) if held.scope == scope else 0
            if shared > best[1] and self._resumable is not None:
                shared = self._resumable(slot, shared)
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
