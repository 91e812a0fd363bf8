"""Which sequences run in the next step, and where. Pure: it moves plain objects and knows no model.

Rows go in by ascending slot, and the slots of sequences that step together stay one block (`slot_choice`).
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.jobs.events import Delta
from workers.batching.adapter_turns import AdapterTurns
from workers.batching.prefill_turns import PrefillTurns
from workers.batching.prefix_cache import MIN_SHARED_TOKENS, PrefixCache, Resumable, common_prefix
from workers.batching.sequence import BatchSequence
from workers.batching.slot_choice import hole_in, slots_beside
from workers.batching.speculation import Speculation
from workers.engines.base import Chunk, Limits

LEAST_SPLIT_TOKENS = 256  # of a step; smaller chunks of prompts gain nothing
HOLE_STEPS = 8  # a hole this old is closed: a move costs a fraction of a step, a newcomer may fill the hole for nothing


@dataclass(frozen=True, slots=True)
class CacheStart:
    """What the cache of a sequence starts with: the first `tokens` cells of the slot `source`, to be copied.

    If `source` is the sequence's own slot, cut it to `tokens`. If None, start empty.
    """

    sequence: BatchSequence
    source: int | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Donor:
    """A running sequence whose first `shared` tokens another one waits for."""

    sequence: BatchSequence
    shared: int


class Scheduler:
    """Sequences waiting for a slot, and sequences that hold one.

    keeps_order: the slots of sequences that step together shall be one block. shares_prefixes: the engine can copy and
    cut caches. resumable: where they can be cut; None: anywhere. mixes_adapters: those with different adapters can be
    in one step. speculation: guesses tokens; None: there are no guesses.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        keeps_order: bool = False,
        shares_prefixes: bool = False,
        mixes_adapters: bool = True,
        resumable: Resumable | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self._limits = limits
        self.speculation = speculation
        self._prefill_turns = PrefillTurns(limits.max_batched_tokens)
        self._adapter_turns = None if mixes_adapters else AdapterTurns()
        self._keeps_order = keeps_order
        self._shares_prefixes = shares_prefixes
        self._waiting: deque[BatchSequence] = deque()
        self._running: list[BatchSequence] = []  # by ascending slot
        self._free = set(range(limits.slots))
        self._donors: dict[str, _Donor] = {}  # by the id of the sequence that waits
        self._steps_with_hole = 0
        self._cuts_anywhere = resumable is None
        self.prefix_cache = PrefixCache(resumable)
        self.trial_sequence_id: str | None = None  # if set, only this sequence steps; the others wait in their slots

    @property
    def running(self) -> list[BatchSequence]:
        return self._running

    @property
    def has_work(self) -> bool:
        """Return whether a step can be made now."""
        return bool((self._waiting and self._free) or self._stepping())

    def add(self, sequence: BatchSequence) -> None:
        self._waiting.append(sequence)

    def interrupted_before_start(self) -> list[tuple[BatchSequence, Delta]]:
        """Remove waiting sequences that were canceled or ran out of time; returns them with their last output."""
        ended = [(sequence, sequence.interrupted()) for sequence in self._waiting]
        gone = [(sequence, delta) for sequence, delta in ended if delta is not None]
        for sequence, _ in gone:
            self._waiting.remove(sequence)
        return gone

    def admit(self) -> Iterator[CacheStart]:
        """Give free slots to waiting sequences, first come first served.

        Make each copy before the next one is requested: a later sequence may get the slot that is copied from.
        """
        while self._waiting and self._free:
            yield self._seat(self._waiting.popleft())

    def late_starts(self) -> Iterator[CacheStart]:
        """Yield the starts of sequences that waited for another one to compute a shared prefix; copy as in `admit`."""
        for sequence in [sequence for sequence in self._running if sequence.id in self._donors]:
            donor = self._donors[sequence.id]
            if donor.sequence.position >= donor.shared and donor.sequence in self._running:
                yield self._start_from(sequence, donor.sequence.slot, donor.shared)
            elif donor.sequence not in self._running or self.trial_sequence_id == sequence.id:
                # the donor has ended, or is paused
                del self._donors[sequence.id]
                slot, shared = self._best_cached_prefix(sequence)
                if shared >= MIN_SHARED_TOKENS:
                    yield self._start_from(sequence, slot, shared)
                elif self.trial_sequence_id != sequence.id:
                    self._wait_for_donor(sequence, MIN_SHARED_TOKENS)

    def plan(self) -> list[tuple[BatchSequence, Chunk]]:
        """Plan the next step: one token for each sequence that decodes, then prompts by arrival while the budget lasts.

        A step that has room for it computes two long prompts side by side, half of its tokens each: attention computes
        a chunk against all of its own tokens, so that two short chunks cost less than a long one (decision 0059).

        Drafts are added only when the step prefills no prompt.
        """
        stepping = self._stepping()
        if self._adapter_turns is not None:
            stepping = self._adapter_turns.next_group(stepping)
        decoding = [sequence for sequence in stepping if not sequence.is_prefilling]
        prefilling = self._prefill_turns.next_prompts(stepping)
        if self.speculation and not prefilling:
            drafts = self.speculation.drafts(decoding)
            return [(sequence, sequence.next_chunk(1, drafts.get(sequence.id, ()))) for sequence in decoding]
        budget = self._prefill_turns.budget(len(decoding), prefilling[0].position if prefilling else 0)
        longest = _longest_chunk(prefilling, budget)
        planned = [(sequence, sequence.next_chunk(1)) for sequence in decoding]
        for sequence in prefilling:
            if budget <= 0:
                break
            chunk = sequence.next_chunk(min(budget, longest))
            planned.append((sequence, chunk))
            budget -= len(chunk.tokens)
        planned.sort(key=lambda pair: pair[1].slot)
        return planned

    def learn(self, planned: list[tuple[BatchSequence, Chunk]], seconds: float) -> None:
        """Learn from the time that a planned step took."""
        self._prefill_turns.learn(planned, seconds)
        switched = self._adapter_turns is not None and self._adapter_turns.has_switched
        if self.speculation is not None and not switched:
            self.speculation.learn([chunk for _, chunk in planned], seconds)

    def remove(self, sequence: BatchSequence) -> bool:
        """Free the slot of a running sequence. Return True if the cells are kept for the prefix cache."""
        slot = sequence.held_slot
        self._running.remove(sequence)
        self._free.add(slot)
        self._donors.pop(sequence.id, None)
        stays = self._shares_prefixes and sequence.position >= MIN_SHARED_TOKENS
        if stays:
            self.prefix_cache.leave(slot, sequence.computed, sequence.job.scope)
        return stays

    def hole_to_close(self) -> tuple[BatchSequence, int] | None:
        """(last sequence of its block, free slot below it) once a hole has lasted; the caller moves the cache."""
        hole = self._hole()
        self._steps_with_hole = 0 if hole is None else self._steps_with_hole + 1
        return hole if self._steps_with_hole > HOLE_STEPS else None

    def moved(self, sequence: BatchSequence, target: int) -> None:
        """Record that the cells of `sequence` have been moved to the slot `target`."""
        self._free.remove(target)
        self._free.add(sequence.held_slot)
        self.prefix_cache.drop(target)
        sequence.slot = target
        self._running.sort(key=lambda sequence: sequence.held_slot)

    def _stepping(self) -> Sequence[BatchSequence]:
        if not self.trial_sequence_id and not self._donors:
            return self._running
        return [s for s in self._running if self.trial_sequence_id in (None, s.id) and s.id not in self._donors]

    def _hole(self) -> tuple[BatchSequence, int] | None:
        """Return the last sequence of a block with a hole, and the hole."""
        for block in self._blocks() if self._keeps_order else ():
            hole = hole_in([sequence.held_slot for sequence in block], self._free)
            if hole is not None:
                return block[-1], hole
        return None

    def _blocks(self) -> list[list[BatchSequence]]:
        """Return the running sequences that step together, each by ascending slot."""
        if self._adapter_turns is None:
            return [self._running] if self._running else []
        blocks: dict[object, list[BatchSequence]] = {}
        for sequence in self._running:
            blocks.setdefault(sequence.adapters, []).append(sequence)
        return list(blocks.values())

    def _seat(self, sequence: BatchSequence) -> CacheStart:
        source, shared = self._best_cached_prefix(sequence)
        waits = self._wait_for_donor(sequence, max(shared + 1, MIN_SHARED_TOKENS))
        slot = self._choose_slot(self._candidates(sequence), None if waits else source, shared)
        if (slot != source and shared < MIN_SHARED_TOKENS) or waits:
            source = None
        self._free.remove(slot)
        self.prefix_cache.drop(slot)
        sequence.slot = slot
        self._running = sorted((*self._running, sequence), key=lambda sequence: sequence.held_slot)
        return CacheStart(sequence) if source is None else self._start_from(sequence, source, shared)

    def _start_from(self, sequence: BatchSequence, source: int | None, shared: int) -> CacheStart:
        self._donors.pop(sequence.id, None)
        if source in self._free:
            self.prefix_cache.touch(source)
        sequence.begin_with(shared)
        return CacheStart(sequence, source, shared)

    def _best_cached_prefix(self, sequence: BatchSequence) -> tuple[int | None, int]:
        if not self._shares(sequence):
            return None, 0
        # the last token is computed: it samples
        return self.prefix_cache.best(sequence.prefix[:-1], sequence.job.scope)

    def _wait_for_donor(self, sequence: BatchSequence, least: int) -> bool:
        """Wait for the running sequence that will have the longest common prefix, if it has `least` tokens."""
        if not (self._cuts_anywhere and self._shares(sequence)) or self.trial_sequence_id == sequence.id:
            return False
        candidates = [other for other in self._running if self._may_give(other, sequence)]
        donors = [_Donor(other, common_prefix(other.prefix, sequence.prefix[:-1])) for other in candidates]
        best = max(donors, key=lambda donor: (donor.shared, donor.sequence.position), default=None)
        if best is None or best.shared < least:
            return False
        self._donors[sequence.id] = best
        return True

    def _may_give(self, other: BatchSequence, sequence: BatchSequence) -> bool:
        """Return whether `other` may compute a prefix for `sequence`: it has the same scope and waits for none."""
        return other is not sequence and other.job.scope == sequence.job.scope and other.id not in self._donors

    def _shares(self, sequence: BatchSequence) -> bool:
        return self._shares_prefixes and sequence.may_skip_prefill

    def _choose_slot(self, candidates: Sequence[int], source: int | None, shared: int) -> int:
        """Choose the slot that holds the prefix already, unless that discards too many other cells; else the slot whose
        cells were unused for longest.
        """
        fits = source in candidates and 2 * shared >= len(self.prefix_cache.tokens(source))
        if source is not None and (fits or candidates == [source]):
            return source
        return min((slot for slot in candidates if slot != source), key=self.prefix_cache.age)

    def _candidates(self, sequence: BatchSequence) -> list[int]:
        """Return the free slots among which a newcomer chooses."""
        if not self._keeps_order:
            return sorted(self._free)
        is_mixed = self._adapter_turns is None
        block = [one.held_slot for one in self._running if is_mixed or one.adapters == sequence.adapters]
        return slots_beside(block, self._free, [one.held_slot for one in self._running])


def _longest_chunk(prefilling: list[BatchSequence], budget: int) -> int:
    """Return how many tokens of one prompt a step with `budget` tokens computes, so that the second has its half."""
    if len(prefilling) < 2 or budget < LEAST_SPLIT_TOKENS:
        return budget
    shorter = min(len(sequence.prefix) - sequence.position for sequence in prefilling[:2])
    return max(math.ceil(budget / 2), budget - shorter)
