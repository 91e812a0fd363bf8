"""Sequences that no batch can hold (beam search, models without a standard cache): one at a time, beside the batch.

Each turn of the batch loop lets the one in front go on for about as long as a step takes, so that neither it nor the
batch waits for the other's end.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence

from app.errors import RequestError
from workers.batching.sequence import BatchSequence, Update
from workers.engines.base import Engine, Sampled

logger = logging.getLogger(__name__)


class SoloLane:
    """Used by the batch loop's thread alone. The one in front is `current`, and keeps that place to its end."""

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

    def replace(self, sequence: BatchSequence, heir: BatchSequence) -> None:
        """`heir` goes on in the place of `sequence`, whose prompt and tokens it shares."""
        if self.current is sequence:
            self.current = heir
        else:
            self._waiting[self._waiting.index(sequence)] = heir

    def may_go_on(self, alone: str | None) -> bool:
        """Is there one whose turn it is? alone: id of the only sequence that may run now (`Scheduler.alone`)."""
        return self._next(alone) is not None

    def end_interrupted(self) -> list[Update]:
        """Sequences that were canceled or ran out of time leave, with what they have."""
        updates = []
        for sequence in list(self):
            update = sequence.interrupted()
            if update is not None:
                updates.append(update)
                self._leave(sequence)
        return updates

    def turn(self, alone: str | None) -> list[Update]:
        """Let the one in front go on for one turn; nobody's fault but its own ends it."""
        sequence = self._next(alone)
        if sequence is None:
            return []
        try:
            return self._advance(sequence)
        except Exception as error:
            if not isinstance(error, RequestError):
                logger.exception("sequence %s, which ran alone, failed; the worker goes on", sequence.id)
            self._leave(sequence)
            return [sequence.fail(error)]

    def close(self) -> None:
        """Let go of the one in front, which gets no outcome."""
        if self.current is not None:
            self._leave(self.current)

    def _next(self, alone: str | None) -> BatchSequence | None:
        if self.current is not None:
            return self.current if alone in (None, self.current.id) else None
        return next((sequence for sequence in self._waiting if alone in (None, sequence.id)), None)

    def _advance(self, sequence: BatchSequence) -> list[Update]:
        if self.current is None:
            self._waiting.remove(sequence)
            self.current = sequence
            self._turns = self._engine.run_solo(sequence.prompt, sequence.generated)
        assert self._turns is not None
        updates = []
        for sampled in next(self._turns):
            updates.append(sequence.advance(sampled, self._engine.limits.context_tokens))
            if sequence.outcome is not None:
                self._leave(sequence)
                break
        return updates

    def _leave(self, sequence: BatchSequence) -> None:
        if sequence is not self.current:
            self._waiting.remove(sequence)
        else:
            assert self._turns is not None
            self._turns.close()
            self.current = self._turns = None
        self._engine.release(None, sequence.prompt)
