"""Whether a step verifies guessed tokens, of which sequences and how many.

A guess costs a row. How much time a row adds to a step is measured while steps run: next to nothing where the
weights have to be read anyway (a GPU with few sequences), as much as half a step on a small CPU. What a guess brings is
known from the sequence (`NgramLookup.expected_hits`, `DraftGuesses.expected_hits`). Drafts are made only where they are
expected to save time. `worker.speculation: false` disables them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from workers.batching.drafting import Drafting
from workers.batching.ngram_lookup import NgramLookup
from workers.batching.sequence import BatchSequence
from workers.batching.step_cost import StepCost
from workers.engines.base import Chunk, DraftModel, Limits

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)  # tokens; of all drafts of a step: unequal lengths are costly
MARGIN = 1.1  # expected tokens per second with drafts to those without


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
    """Drafts of one length, and the tokens per second that are expected with them."""

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
            self.cost.learn(len({chunk.drafted for chunk in chunks}), sum(len(c.tokens) for c in chunks), seconds)

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
        rate = rows / self.cost.seconds(1, rows)  # tokens per second without
        best, least_rate = _Plan(rate), rate * MARGIN
        for length in LENGTHS:
            least = rate * self.cost.row * length  # tokens that its rows cost
            worthwhile = [draft for draft in drafts if self._fits(draft, length) > least]
            drafted = rows + len(worthwhile) * length
            if not worthwhile or drafted > self._limits.max_batched_tokens:
                continue
            hits = sum(draft.expected_hits[length - 1] for draft in worthwhile)
            expected_rate = (rows + hits) / self.cost.seconds(1 if len(worthwhile) == rows else 2, drafted)
            if expected_rate > max(best.rate, least_rate):
                best = _Plan(expected_rate, length, worthwhile)
        return best

    def _fits(self, draft: _Draft, length: int) -> float:
        """Return the expected hits of so many tokens; 0 if there are not so many, or no room for them."""
        fits = length <= len(draft.expected_hits) and draft.sequence.has_room_for(length, self._limits)
        return draft.expected_hits[length - 1] if fits else 0.0


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
