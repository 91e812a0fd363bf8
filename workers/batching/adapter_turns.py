"""Whose turn it is where a step computes sequences of the same LoRA adapters only.

Sequences with the same adapters are a group. The groups take turns, the one that has waited longest first. A turn lasts
several steps of a small model: to switch takes about as long as such a step (llama.cpp plans its computation again).
"""

import time
from collections.abc import Callable, Sequence

from app.jobs.job import AdapterUse
from workers.batching.sequence import BatchSequence

TURN_SECONDS = 0.05  # a switch takes 3 to 5 ms; a stream waits for the turns of the other groups

Group = tuple[AdapterUse, ...]


class AdapterTurns:
    """Used by the thread of the loop alone. clock: seconds, as `time.monotonic`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._current: Group = ()
        self._began_at = clock()
        self._stepped_at: dict[Group, float] = {}
        self.has_switched = False
        """Whether the last step was the first of a turn: its time says nothing about the next ones."""

    def next_group(self, stepping: Sequence[BatchSequence]) -> Sequence[BatchSequence]:
        """Return the sequences of the group that steps now; none only where none could step."""
        now = self._clock()
        arrived = {one.adapters: one.submitted_at for one in sorted(stepping, key=lambda one: -one.submitted_at)}
        self._stepped_at = {group: at for group, at in self._stepped_at.items() if group in arrived}
        group = self._current
        if group not in arrived or (len(arrived) > 1 and now - self._began_at >= TURN_SECONDS):
            group = min(arrived, key=lambda one: self._stepped_at.get(one, arrived[one]), default=self._current)
        self.has_switched = group != self._current
        if self.has_switched:
            self._current, self._began_at = group, now
        self._stepped_at[group] = now
        return [sequence for sequence in stepping if sequence.adapters == group]
