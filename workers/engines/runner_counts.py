"""What a runner counts of its steps, for the metrics of its worker. One thread adds, any thread reads."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

STEP_SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
STEP_ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)


class Distribution:
    """How many values lie between two bounds, and their sum. counts: the last one is of values above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class RunnerCounts:
    """step_rows: tokens that a step computes. prompt_tokens: of the sequences that began.

    reused_tokens: of these, those that were in the cache already. drafted_tokens: guesses. accepted_tokens: right ones.
    """

    step_seconds: Distribution = field(default_factory=lambda: Distribution(STEP_SECONDS_BOUNDS))
    step_rows: Distribution = field(default_factory=lambda: Distribution(STEP_ROWS_BOUNDS))
    prompt_tokens: int = 0
    reused_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def note_step(self, seconds: float, rows: int) -> None:
        self.step_seconds.add(seconds)
        self.step_rows.add(rows)

    def note_start(self, prompt_tokens: int, reused_tokens: int) -> None:
        """Note a sequence that begins. It may wait for a prefix, and reuse it later."""
        self.prompt_tokens += prompt_tokens
        self.reused_tokens += reused_tokens

    def note_guesses(self, drafted: int, accepted: int) -> None:
        self.drafted_tokens += drafted
        self.accepted_tokens += accepted
