"""Lets a draft model guess tokens, of the sequences and as many of them as are expected to save time.

A guess costs a step of the draft model, and then a row of the model's own step. Both are measured while they run, and
so is how often guesses hold, of each sequence and of all. With many sequences rows are costly, and no guess is made;
with few it pays again. A sequence whose guesses fail gets none, and after some dozens of tokens another attempt.
"""

import logging
import math
import time
from collections.abc import Sequence

from workers.batching.draft_guesses import DraftGuesses, HitRates
from workers.batching.sequence import BatchSequence
from workers.batching.step_cost import DraftedSlots, StepCost
from workers.engines.base import Continuation, DraftModel, Limits

logger = logging.getLogger(__name__)

MARGIN = 1.05  # expected speed (see `speculation`) with the draft model to that without
READ_ROWS = 64  # of a prompt between two steps of other sequences, at least: these wait meanwhile
FEW_ROWS = 4  # steps of the draft model with more rows of one sequence read a text: they say nothing of a guess's cost


class Drafting:
    """One for a batch loop, used by its thread alone. step_cost: of the model that verifies."""

    def __init__(self, model: DraftModel, step_cost: StepCost, limits: Limits) -> None:
        self._model: DraftModel | None = model
        self._step_cost = step_cost
        self._limits = limits
        self._rates = HitRates()
        self.cost = StepCost()

    def guess(self, candidates: Sequence[BatchSequence], rows: int, rate: float) -> list[BatchSequence]:
        """Return the sequences for which the model has made guesses (`BatchSequence.draft_guesses`).

        Args:
            rows: sequences that decode in the step. rate: tokens per second that it is expected to have without.
        """
        if self._model is None:
            return []
        unread = {}
        for sequence in candidates:
            tokens = self._model.unread(_continuation(sequence)) if self._is_worth_a_guess(sequence, rate) else None
            if tokens is not None:
                unread[sequence.id] = tokens
        drafting = [sequence for sequence in candidates if sequence.id in unread]
        if not drafting or not self._pays(drafting, sum(unread.values()), rows, rate):
            return []
        try:
            self._draft(self._model, drafting, unread, rows, rate)
        except Exception:
            logger.exception("the draft model failed: it guesses no more until the worker is started again")
            self._model = None
            return []
        return [sequence for sequence in drafting if _guesses(sequence).expected_hits]

    def _is_worth_a_guess(self, sequence: BatchSequence, rate: float) -> bool:
        """Return whether a first guess is expected to save more time than its rows take. It has none from here on."""
        if sequence.draft_guesses is None:
            sequence.draft_guesses = DraftGuesses(self._rates)
        sequence.draft_guesses.begin()
        return self._saves(sequence, rate)

    def _saves(self, sequence: BatchSequence, rate: float) -> bool:
        return _guesses(sequence).next_chance > rate * (self.cost.row + self._step_cost.row)

    def _pays(self, drafting: Sequence[BatchSequence], unread: int, rows: int, rate: float) -> bool:
        """Return whether some length of draft is fast enough, and soon makes up for what the model has yet to read."""
        count = len(drafting)
        slots = DraftedSlots()
        for sequence in drafting:
            slots.add(sequence.held_slot)
        groups = slots.groups(rows)
        best = 0.0
        for length in range(1, self._most_tokens + 1):
            seconds = length * self.cost.seconds(1, count) + self._step_cost.seconds(groups, rows + count * length)
            gain = sum(math.log1p(_guesses(sequence).hits(length)) for sequence in drafting)
            best = max(best, rows * math.exp(gain / rows) / seconds)
        if best < MARGIN * rate:
            return False
        expected_tokens = sum(sequence.tokens_left for sequence in drafting) / 2  # many end before their limit
        return expected_tokens * (1 / rate - 1 / best) > (unread - count) * self.cost.row

    def _draft(
        self, model: DraftModel, drafting: Sequence[BatchSequence], unread: dict[str, int], rows: int, rate: float
    ) -> None:
        for length in range(1, self._most_tokens + 1):
            started = time.perf_counter()
            made = model.guess([_continuation(sequence) for sequence in drafting], self._rows_to_read(rows))
            lengths = [unread.get(sequence.id, 1) for sequence in drafting] if length == 1 else [1] * len(drafting)
            if max(lengths) <= FEW_ROWS:
                self.cost.learn(len(set(lengths)), sum(lengths), time.perf_counter() - started)
            guessed = [(sequence, guess) for sequence, guess in zip(drafting, made, strict=True) if guess is not None]
            for sequence, guess in guessed:
                _guesses(sequence).add(guess)
            drafting = [s for s, _ in guessed if s.has_room_for(length + 1, self._limits) and self._saves(s, rate)]
            expected = sum(_guesses(sequence).next_chance for sequence in drafting)
            count = len(drafting)
            if expected <= rate * (self.cost.seconds(1, count) + self._step_cost.row * count):
                break

    def _rows_to_read(self, rows: int) -> int:
        """Return how many tokens the model may compute at once: beside others, what takes as long as their step."""
        most = self._limits.max_batched_tokens
        if rows == 1 or not self.cost.row:
            return most
        return min(most, max(READ_ROWS, int(self._step_cost.seconds(1, rows) / self.cost.row)))

    @property
    def _most_tokens(self) -> int:
        return 0 if self._model is None else self._model.max_tokens


def _continuation(sequence: BatchSequence) -> Continuation:
    assert sequence.slot is not None
    generated = [*sequence.generated, *_guesses(sequence).tokens]
    return Continuation(slot=sequence.slot, prompt=sequence.prompt, generated=generated)


def _guesses(sequence: BatchSequence) -> DraftGuesses:
    assert sequence.draft_guesses is not None
    return sequence.draft_guesses
