"""Whether a step verifies guessed tokens, of which sequences and how many.

A guess costs a row. How much time a row adds to a step is measured while steps run: next to nothing where the
weights have to be read anyway (a GPU with few sequences), as much as half a step on a small CPU. What a guess brings is
known from the sequence (`NgramLookup.expected_hits`, `DraftGuesses.expected_hits`). Drafts are made only where they are
expected to save time. `worker.speculation: false` disables them.

The sequences without a guess wait while those of others are computed. So what is compared is the geometric mean of the
sequences' speeds: a step that doubles the speed of one must not halve that of another. The sum of the speeds counts
the first as a gain, yet the sequences that wait are the last to end, in a batch with fewer others (decision 0060).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from workers.batching.drafting import Drafting
from workers.batching.ngram_lookup import NgramLookup
from workers.batching.sequence import BatchSequence
from workers.batching.step_cost import DraftedSlots, StepCost
from workers.engines.base import Chunk, DraftModel, Limits

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)  # tokens; of all drafts of a step: unequal lengths are costly
MARGIN = 1.1  # expected speed with drafts to that without


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is guessed for a sequence. expected_hits: of the first token, the first two, ..., as many as there are.

    tokens: returns the first so many.
    """

    sequence: BatchSequence
    expected_hits: Sequence[float]
    tokens: Callable[[int], list[int]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Drafts of one length, and the speed that is expected with them: the geometric mean over the sequences that
    decode, times their number, in tokens per second.
    """

    rate: float
    length: int = 0
    drafts: Sequence[_Draft] = ()


class Speculation:
    """Drafts for the sequences that decode. One for a batch loop, used by its thread alone.

    model: guesses where the text itself has no guess that saves time.
    """

    def __init__(self, limits: Limits, model: DraftModel | None = None) -> None:
        self._limits = limits
        self.cost = StepCost()
        self.drafting = None if model is None else Drafting(model, self.cost, limits)

    def learn(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """Learn from the time of a step. Steps with prompts are left out: they say little about the cost of guesses."""
        if all(len(chunk.tokens) == 1 + chunk.drafted for chunk in chunks):
            slots = DraftedSlots()
            for chunk in chunks:
                if chunk.drafted:
                    slots.add(chunk.slot)
            self.cost.learn(slots.groups(len(chunks)), sum(len(chunk.tokens) for chunk in chunks), seconds)

    def drafts(self, decoding: Sequence[BatchSequence]) -> dict[str, list[int]]:
        """Return guessed tokens by sequence id, equally many for each; empty if none save time."""
        rows = len(decoding)
        repeating = [sequence for sequence in decoding if _lookup(sequence).has_guess]
        if not (repeating or self.drafting) or not self._could_pay(rows):
            return {}
        plan = self._best(rows, [_draft_of_text(sequence) for sequence in repeating])
        if self.drafting is not None:
            repeated = {draft.sequence.id for draft in plan.drafts}
            others = [s for s in decoding if s.id not in repeated and s.has_room_for(1, self._limits)]
            guessed = self.drafting.guess(others, rows, plan.rate)
            if guessed:
                plan = self._best(rows, [*plan.drafts, *map(_draft_of_model, guessed)])
        return {draft.sequence.id: draft.tokens(plan.length) for draft in plan.drafts}

    def _could_pay(self, rows: int) -> bool:
        """Return whether guesses would save time if every sequence had a draft and all were right."""
        return any(
            (1 + length) * self.cost.seconds(1, rows) > MARGIN * self.cost.seconds(1, rows * (1 + length))
            for length in LENGTHS
        )

    def _best(self, rows: int, drafts: Sequence[_Draft]) -> _Plan:
        """Return the drafts, cut to the length with the highest expected rate; no draft if that is hardly faster."""
        rate = rows / self.cost.seconds(1, rows)
        best, least_rate = _Plan(rate), rate * MARGIN
        for length in LENGTHS:
            fitting = [draft for draft in drafts if self._fits(draft, length)]
            fitting.sort(key=lambda draft: draft.expected_hits[length - 1], reverse=True)
            gain, slots = 0.0, DraftedSlots()  # gain: the sum of the logarithms of how far the sequences advance
            for count, draft in enumerate(fitting, 1):
                gain += math.log1p(draft.expected_hits[length - 1])
                slots.add(draft.sequence.held_slot)
                drafted = rows + count * length
                if drafted > self._limits.max_batched_tokens:
                    break
                expected_rate = rows * math.exp(gain / rows) / self.cost.seconds(slots.groups(rows), drafted)
                if expected_rate > max(best.rate, least_rate):
                    best = _Plan(expected_rate, length, fitting[:count])
        return best

    def _fits(self, draft: _Draft, length: int) -> bool:
        """Return whether there are so many guesses, and room for them."""
        return length <= len(draft.expected_hits) and draft.sequence.has_room_for(length, self._limits)


def _draft_of_text(sequence: BatchSequence) -> _Draft:
    lookup = _lookup(sequence)
    return _Draft(sequence, [*islice(lookup.expected_hits(), LENGTHS[-1])], lookup.guesses)


def _draft_of_model(sequence: BatchSequence) -> _Draft:
    guesses = sequence.draft_guesses
    assert guesses is not None
    return _Draft(sequence, guesses.expected_hits, lambda length: guesses.tokens[:length])


def _lookup(sequence: BatchSequence) -> NgramLookup:
    """Return the lookup of a sequence. It is made at its first use; then the sequence passes each new token to it."""
    if sequence.lookup is None:
        sequence.lookup = NgramLookup([*sequence.prompt.tokens, *sequence.generated])
    return sequence.lookup
