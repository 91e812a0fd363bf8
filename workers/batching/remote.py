"""Sequences that somebody else computes (`Engine.forward`): they hold no slot of the cache and wait for nothing here,
and are canceled, timed and ended like all others.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

from app.errors import LLMAPIError
from workers.batching.sequence import BatchSequence, Update
from workers.engines.base import Engine, Sampled, Stop

_ENDLESS = 2**62  # tokens of context: whoever computes knows its own limit

logger = logging.getLogger(__name__)


class RemoteLane:
    """Used by the batch loop's thread alone. command: has something done by that thread, from any other."""

    def __init__(self, engine: Engine, command: Callable[[Callable[[], None]], None]) -> None:
        self._engine = engine
        self._command = command
        self._running: dict[str, tuple[BatchSequence, Stop]] = {}
        self._news: list[Update] = []

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[BatchSequence]:
        return iter([sequence for sequence, _ in self._running.values()])

    @property
    def patience_seconds(self) -> float | None:
        """Until somebody's time is up; None while nobody is here."""
        return max(0.0, min((sequence.seconds_left for sequence in self), default=0.0)) if self._running else None

    def add(self, sequence: BatchSequence) -> None:
        def tell(sampled: Sequence[Sampled]) -> None:
            self._command(lambda: self._take(sequence, sampled))

        try:
            stop = self._engine.forward(
                sequence.prompt, list(sequence.generated), sequence.earlier_text, sequence.seconds_left, tell
            )
        except Exception as error:
            self._fail(sequence, error)
        else:
            self._running[sequence.id] = (sequence, stop)

    def take_news(self) -> list[Update]:
        """What has come since the last call."""
        news, self._news = self._news, []
        return news

    def end_interrupted(self) -> list[Update]:
        """Sequences that were canceled or ran out of time leave, with what they have."""
        updates = []
        for sequence in self:
            update = sequence.interrupted()
            if update is not None:
                updates.append(update)
                self._leave(sequence)
        return updates

    def close(self) -> None:
        """Let go of all, without an outcome."""
        for sequence in self:
            self._leave(sequence)

    def _take(self, sequence: BatchSequence, told: Sequence[Sampled]) -> None:
        for sampled in told:
            if self._running.get(sequence.id, (None,))[0] is not sequence:  # it has left meanwhile
                return
            if sampled.error is not None:
                self._leave(sequence)
                self._fail(sequence, sampled.error)
                return
            self._news.append(sequence.advance(sampled, _ENDLESS))
            if sequence.outcome is not None:
                self._leave(sequence)

    def _fail(self, sequence: BatchSequence, error: Exception) -> None:
        if not isinstance(error, LLMAPIError):
            logger.error("sequence %s, which is computed elsewhere, failed", sequence.id, exc_info=error)
        self._news.append(sequence.fail(error))

    def _leave(self, sequence: BatchSequence) -> None:
        _, stop = self._running.pop(sequence.id)
        stop()
        self._engine.release(None, sequence.prompt)
