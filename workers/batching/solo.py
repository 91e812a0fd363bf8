"""Sequences that no batch can hold (beam search, models without a standard cache): one at a time, beside the batch.

Each turn of the batch loop runs the current one for about as long as a step takes, so that neither it nor the batch
waits for the end of the other.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence

from app.errors import RequestError
from workers.batching.sequence import BatchSequence
from workers.engines.base import Engine, Sampled
from workers.engines.runner import Report

logger = logging.getLogger(__name__)


class SoloLane:
    """Used by the batch loop's thread alone. `current` runs until it ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[BatchSequence] = deque()
        self._turns: Generator[Sequence[Sampled]] | None = None
        self.current: BatchSequence | None = None

    def __iter__(self) -> Iterator[BatchSequence]:
        if self.current is not None:
            yield self.current
        yield from self._waiting

    def add(self, sequence: BatchSequence) -> None:
        self._waiting.append(sequence)

    def has_turn(self, trial_id: str | None) -> bool:
        """Return whether a sequence may run now. trial_id: the only one that may (`Scheduler.trial_sequence_id`)."""
        return self._next(trial_id) is not None

    def end_interrupted(self) -> list[Report]:
        """Remove sequences that were canceled or ran out of time; returns their last output."""
        reports = []
        for sequence in list(self):
            delta = sequence.interrupted()
            if delta is not None:
                reports.append(Report(sequence.job, delta, sequence.outcome))
                self._leave(sequence)
        return reports

    def turn(self, trial_id: str | None) -> list[Report]:
        """Run the current sequence for one turn. Its failure ends no other sequence."""
        sequence = self._next(trial_id)
        if sequence is None:
            return []
        try:
            return self._advance(sequence)
        except Exception as error:
            if not isinstance(error, RequestError):
                logger.exception("sequence %s, which ran alone, failed; the worker continues", sequence.id)
            self._leave(sequence)
            return [Report(sequence.job, sequence.fail(error), sequence.outcome)]

    def close(self) -> None:
        """Drop the current sequence; it gets no outcome."""
        if self.current is not None:
            self._leave(self.current)

    def _next(self, trial_id: str | None) -> BatchSequence | None:
        if self.current is not None:
            return self.current if trial_id in (None, self.current.id) else None
        return next((sequence for sequence in self._waiting if trial_id in (None, sequence.id)), None)

    def _advance(self, sequence: BatchSequence) -> list[Report]:
        if self.current is None:
            assert sequence.prompt.solo is not None
            self._waiting.remove(sequence)
            self.current = sequence
            self._turns = sequence.prompt.solo.run(sequence.prompt, sequence.generated)
        assert self._turns is not None
        reports = []
        for sampled in next(self._turns):
            delta = sequence.advance(sampled, self._engine.limits.context_tokens)
            reports.append(Report(sequence.job, delta, sequence.outcome))
            if sequence.outcome is not None:
                self._leave(sequence)
                break
        return reports

    def _leave(self, sequence: BatchSequence) -> None:
        if sequence is not self.current:
            self._waiting.remove(sequence)
        else:
            assert self._turns is not None
            self._turns.close()
            self.current = self._turns = None
        self._engine.release(None, sequence.prompt)
