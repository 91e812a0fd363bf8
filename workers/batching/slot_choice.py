"""Which free slots keep sequences together that run in the same step.

With one KV stream per slot, llama.cpp runs a batch in one piece only where its slots are ascending and consecutive (8
sequences in slots 0-7: 254 tok/s, in slots 0, 4, 8...: 158). So a newcomer takes a hole in the block of those with
which it will step, or a slot at the block's edge.
"""

from collections.abc import Collection, Sequence


def slots_beside(block: Sequence[int], free: Collection[int], taken: Collection[int]) -> list[int]:
    """Return the free slots, ascending, among which a newcomer chooses; at least one, if one is free.

    block: the slots, ascending, of those with which it steps. taken: of all that run.
    """
    ascending = sorted(free)
    if not block:
        return _far_from(taken, ascending)
    lowest, highest = block[0], block[-1]
    holes = [slot for slot in ascending if lowest < slot < highest]
    return holes or [slot for slot in ascending if slot in (lowest - 1, highest + 1)] or ascending


def hole_in(block: Sequence[int], free: Collection[int]) -> int | None:
    """Return the lowest free slot between those of a block, ascending."""
    return next((slot for slot in range(block[0], block[-1]) if slot in free), None)


def _far_from(taken: Collection[int], free: list[int]) -> list[int]:
    """Return the free slots that are farthest from those of other blocks, which may grow."""
    if not taken or not free:
        return free
    distances = {slot: min(abs(slot - other) for other in taken) for slot in free}
    farthest = max(distances.values())
    return [slot for slot in free if distances[slot] == farthest]
