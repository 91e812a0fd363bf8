"""Whether a step verifies guessed tokens, of which sequences and how many.

A guess costs a row. How much time a row adds to a step is measured while steps run: next to nothing where the
weights have to be read anyway (a GPU with few sequences), as much as half a step on a small CPU. What a guess brings is
known from the sequence (`NgramLookup.expected_hits`). Drafts are made only where they are expected to save time.
`worker.speculation: false` disables them.
"""

from collections.abc import Sequence
from itertools import islice

from workers.batching.ngram_lookup import NgramLookup
from workers.batching.sequence import BatchSequence
from workers.engines.base import Chunk, Limits

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # tokens; of all drafts of a step: rows of unequal length are costly
MARGIN = 1.1  # expected tokens per second with drafts to those without


class StepCost:
    """A linear model of step time: a cost per group of rows of equal length plus a cost per row.

    Fitted by normalised least mean squares: each measured step corrects both costs.
    """

    LEARNING_RATE = 0.1
    LARGEST_SURPRISE = 0.5  # as a share of the expected time, so that an interrupted step counts little
    LEAST_GROUP = 0.4  # of a row's cost; otherwise noise could make drafts so expensive that none is tried again

    def __init__(self) -> None:
        self.group = self.row = 0.0

    def seconds(self, groups: int, rows: int) -> float:
        return self.group * groups + self.row * rows

    def learn(self, groups: int, rows: int, seconds: float) -> None:
        expected = self.seconds(groups, rows)
        if not expected:
            self.group = self.row = seconds / (groups + rows)
            return
        surprise = min(max(seconds - expected, -self.LARGEST_SURPRISE * expected), self.LARGEST_SURPRISE * expected)
        correction = self.LEARNING_RATE * surprise / (groups**2 + rows**2)
        self.row = max(0.0, self.row + correction * rows)
        self.group = max(self.LEAST_GROUP * self.row, self.group + correction * groups)


class Speculation:
    """Drafts for the sequences that decode. One for a batch loop, used by its thread alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.cost = StepCost()

    def learn(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """Learn from the time of a step. Steps with prompts are left out: they say little about the cost of guesses."""
        if all(len(chunk.tokens) == 1 + chunk.drafted for chunk in chunks):
            self.cost.learn(len({chunk.drafted for chunk in chunks}), sum(len(c.tokens) for c in chunks), seconds)

    def drafts(self, decoding: Sequence[BatchSequence]) -> dict[str, list[int]]:
        """Return guessed tokens by sequence id, equally many for each; empty if none save time."""
        guessing = [sequence for sequence in decoding if _lookup(sequence).has_guess]
        rows = len(decoding)
        if not guessing or not self._could_pay(rows):
            return {}
        length, chosen = self._best(rows, guessing)
        return {sequence.id: _lookup(sequence).guesses(length) for sequence in chosen}

    def _could_pay(self, rows: int) -> bool:
        """Return whether guesses would save time if every sequence had a draft and all were right."""
        return any(
            (1 + length) * self.cost.seconds(1, rows) > MARGIN * self.cost.seconds(1, rows * (1 + length))
            for length in LENGTHS
        )

    def _best(self, rows: int, guessing: Sequence[BatchSequence]) -> tuple[int, list[BatchSequence]]:
        """Return the draft length with the highest expected rate, and the sequences that get a draft."""
        rate = rows / self.cost.seconds(1, rows)  # tokens per second without
        best, best_length, chosen = rate * MARGIN, 0, list[BatchSequence]()
        expected = {s.id: list(islice(_lookup(s).expected_hits(), LENGTHS[-1])) for s in guessing}
        for length in LENGTHS:
            least = rate * self.cost.row * length  # tokens that its rows cost
            worthwhile = [s for s in guessing if expected[s.id][length - 1] > least and self._fits(s, length)]
            drafted = rows + len(worthwhile) * length
            if not worthwhile or drafted > self._limits.max_batched_tokens:
                continue
            hits = sum(expected[sequence.id][length - 1] for sequence in worthwhile)
            expected_rate = (rows + hits) / self.cost.seconds(1 if len(worthwhile) == rows else 2, drafted)
            if expected_rate > best:
                best, best_length, chosen = expected_rate, length, worthwhile
        return best_length, chosen

    def _fits(self, sequence: BatchSequence, length: int) -> bool:
        """Return whether a draft is shorter than what the sequence may still generate."""
        return length < min(sequence.tokens_left, self._limits.context_tokens - sequence.position)


def _lookup(sequence: BatchSequence) -> NgramLookup:
    """Return the lookup of a sequence. It is made at its first use; then the sequence passes each new token to it."""
    if sequence.lookup is None:
        sequence.lookup = NgramLookup([*sequence.prompt.tokens, *sequence.generated])
    return sequence.lookup
