"""Who runs in the next step, and where. Pure: it moves plain objects and knows no model.

Rows go in by ascending slot and slots stay dense: with one KV stream per slot, llama.cpp runs a batch in one piece only
where the slots are ascending and consecutive (8 sequences in slots 0-7: 254 tok/s, in slots 0, 4, 8...: 158).
"""

import heapq
from collections import deque

from workers.batching.sequence import Sequence
from workers.engines.base import Chunk, Limits

HOLE_STEPS = 8  # a hole this old is closed: a move costs a fraction of a step, a newcomer may fill the hole for nothing


class Scheduler:
    """Sequences waiting for a slot, and sequences that hold one."""

    def __init__(self, limits: Limits, *, moves_slots: bool = False) -> None:
        self._limits = limits
        self._moves_slots = moves_slots
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # by ascending slot
        self._free = list(range(limits.slots))  # a heap: a newcomer takes the lowest
        self._steps_with_hole = 0
        self.alone: str | None = None  # id of the one sequence that steps; the others keep their slots and wait

    @property
    def running(self) -> list[Sequence]:
        return self._running

    @property
    def has_work(self) -> bool:
        """Is there anything to do now?"""
        return bool((self._waiting and self._free) or self._stepping())

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def find(self, sequence_id: str) -> Sequence | None:
        return next((s for s in (*self._running, *self._waiting) if s.id == sequence_id), None)

    def interrupted_before_start(self) -> list[Sequence]:
        """Waiting sequences that were canceled or ran out of time; they leave the queue."""
        gone = [sequence for sequence in self._waiting if sequence.interrupted() is not None]
        for sequence in gone:
            self._waiting.remove(sequence)
        return gone

    def admit(self) -> list[Sequence]:
        """Give free slots to waiting sequences, first come first served; returns those that start now."""
        started = []
        while self._waiting and self._free:
            sequence = self._waiting.popleft()
            sequence.slot = heapq.heappop(self._free)
            started.append(sequence)
        if started:
            self._running = sorted((*self._running, *started), key=_slot)
        return started

    def plan(self) -> list[tuple[Sequence, Chunk]]:
        """The next step: one token for everyone who decodes, then prompts by arrival while the budget lasts."""
        stepping = self._stepping()
        decoding = [sequence for sequence in stepping if not sequence.is_prefilling]
        budget = self._limits.max_batched_tokens - len(decoding)
        planned = [(sequence, sequence.next_chunk(1)) for sequence in decoding]
        prefilling = [sequence for sequence in stepping if sequence.is_prefilling]
        for sequence in sorted(prefilling, key=lambda s: s.submitted_at):
            if budget <= 0:
                break
            chunk = sequence.next_chunk(budget)
            planned.append((sequence, chunk))
            budget -= len(chunk.tokens)
        planned.sort(key=lambda pair: pair[1].slot)
        return planned

    def _stepping(self) -> list[Sequence]:
        return [sequence for sequence in self._running if sequence.id == self.alone] if self.alone else self._running

    def remove(self, sequence: Sequence) -> None:
        """A running sequence leaves; its slot is free."""
        self._running.remove(sequence)
        heapq.heappush(self._free, _slot(sequence))

    def hole_to_close(self) -> tuple[Sequence, int] | None:
        """(sequence in the highest slot, free slot below it) once a hole has lasted; the caller moves the cache."""
        if not (self._moves_slots and self._running and self._free and self._free[0] < _slot(self._running[-1])):
            self._steps_with_hole = 0
            return None
        self._steps_with_hole += 1
        return (self._running[-1], self._free[0]) if self._steps_with_hole > HOLE_STEPS else None

    def moved(self, sequence: Sequence, target: int) -> None:
        """The cache of `sequence` lies in `target` now."""
        source = _slot(sequence)
        assert heapq.heappop(self._free) == target
        heapq.heappush(self._free, source)
        sequence.slot = target
        self._running.sort(key=_slot)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
