"""The batch loop: one thread that lets sequences join and leave between any two steps of the engine."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import InvalidRequest
from app.niceness import set_niceness
from workers.batching.prefix_cache import MIN_SHARED_TOKENS
from workers.batching.scheduler import CacheStart, Scheduler
from workers.batching.sequence import BatchSequence
from workers.batching.solo import SoloLane
from workers.batching.speculation import Speculation
from workers.engines.base import Chunk, Engine, Sampled, SlotCache
from workers.engines.runner import Report, RunnerHost, RunnerJob
from workers.engines.runner_counts import RunnerCounts

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trial:
    """tokens: after so many new ones the sequence has passed.

    None: no check (the trial is over, or the job runs alone to its end).
    """

    sequence_id: str
    tokens: int | None


_NONE_OF_THEM = "-"  # no sequence has this id
_STOP_SECONDS = 10.0  # for the last step, as one of a long prompt takes seconds
_PAUSE_SECONDS = 5.0  # that the step which runs is waited for; a longer one runs beside the trial


class BatchLoop:
    """Runs an engine, and reports to `host` from the loop's thread what each step has produced.

    Every submitted sequence gets exactly one outcome, unless the loop is stopped first.

    speculates: guess tokens, where the engine can verify them and time is saved.
    note_failure: called when a sampler fails.
    nice: niceness of its thread and of those that the engine starts from it, if the engine computes on CPUs.
    """

    def __init__(
        self,
        engine: Engine,
        host: RunnerHost,
        *,
        speculates: bool = True,
        nice: int = 0,
        note_failure: Callable[[RunnerJob, Exception], None] = lambda job, error: None,
    ) -> None:
        self._engine = engine
        self._note_failure = note_failure
        self._nice = nice
        self._host = host
        self._checkpoints = engine.checkpoint_cache
        speculates = speculates and engine.verifies_drafts
        self._scheduler = Scheduler(
            engine.limits,
            keeps_order=engine.slot_cache is not None,
            shares_prefixes=engine.shares_prefixes,
            mixes_adapters=engine.mixes_adapters,
            resumable=None if self._checkpoints is None else self._checkpoints.resumable,
            speculation=Speculation(engine.limits, engine.draft_model) if speculates else None,
        )
        self._lane = SoloLane(engine)
        self.counts = RunnerCounts()
        self._inbox: queue.SimpleQueue[BatchSequence | None] = queue.SimpleQueue()  # None wakes the loop
        self._stopping = False
        self._cells_when_idle = 0
        self._turn_began_at: float | None = None  # None: it does not turn
        self._trial: _Trial | None = None
        self._all_paused = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batch-loop", daemon=True)

    @property
    def running_count(self) -> int:
        return len(self._scheduler.running) + (self._lane.current is not None)

    @property
    def used_cells(self) -> int:
        """Cells held by sequences; with none running, cells beyond those of the prefix cache: a leak if not 0."""
        running = list(self._scheduler.running)
        return sum(sequence.position for sequence in running) if running else self._cells_when_idle

    @property
    def seconds_in_turn(self) -> float:
        """How long the turn that runs now has taken; 0: the loop waits for sequences, or has ended."""
        began_at = self._turn_began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step, and wait for that, but not for ever; sequences still running get no outcome."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @property
    def stands_still(self) -> bool:
        """It was stopped, and its last step does not end."""
        return self._stopping and self._thread.is_alive()

    def submit(self, sequence: BatchSequence) -> None:
        self._inbox.put(sequence)

    def wake(self) -> None:
        """Take commands before the next step: a sequence was canceled, or the trial has changed."""
        self._inbox.put(None)

    def pause_all(self) -> None:
        """Let no sequence step until `pause_others` or `release_others`. Returns when the step that runs has ended."""
        self._all_paused.clear()
        self._trial = _Trial(_NONE_OF_THEM, None)
        self.wake()
        self._all_paused.wait(_PAUSE_SECONDS)

    def pause_others(self, sequence_id: str, *, tokens: int | None) -> None:
        """Step only this sequence until `release_others`. It may be submitted later. The others wait in their slots.

        tokens: after so many new ones `pass_trial` of the host is called, once; None: never.
        """
        self._trial = _Trial(sequence_id, tokens)
        self.wake()

    def release_others(self) -> None:
        self._trial = None
        self.wake()

    def _run(self) -> None:
        if self._engine.computes_on_cpu:
            set_niceness(self._nice)  # before the engine's own threads start: they inherit it
        while self._receive():
            self._turn()
        self._turn_began_at = None
        self._lane.close()

    def _turn(self) -> None:
        """Make a step. When it is over, the thread holds nothing of the sequences that have ended."""
        reports: list[Report] = []
        try:
            self._end_interrupted(reports)
            self._start_waiting()
            self._close_hole()
            self._step(reports)
            self._take_solo_turn(reports)
        except Exception as error:
            running = len(self._scheduler.running)
            logger.exception("a step of %d sequences failed; their requests fail, the worker continues", running)
            self._fail_batch(error, reports)
        if reports:
            self._host.report(reports)

    def _receive(self) -> bool:
        """Take all new sequences; with nothing to run, wait for one. False: stop."""
        if not (self._scheduler.has_work or self._lane.has_turn(self._scheduler.trial_sequence_id)):
            if not self._scheduler.running:
                self._cells_when_idle = self._engine.used_cells() - self._scheduler.prefix_cache.cells
            self._turn_began_at = None
            self._add(self._inbox.get())
        self._turn_began_at = time.monotonic()
        while not self._inbox.empty():
            self._add(self._inbox.get())
        trial = self._trial
        self._scheduler.trial_sequence_id = None if trial is None else trial.sequence_id
        if self._scheduler.trial_sequence_id == _NONE_OF_THEM:
            self._all_paused.set()
        return not self._stopping

    def _add(self, sequence: BatchSequence | None) -> None:
        if sequence is not None:
            (self._scheduler if sequence.prompt.solo is None else self._lane).add(sequence)

    def _end_interrupted(self, reports: list[Report]) -> None:
        for sequence, delta in self._scheduler.interrupted_before_start():
            self._engine.release(None, sequence.prompt)
            reports.append(Report(sequence.job, delta, sequence.outcome))
        for sequence in list(self._scheduler.running):
            delta_at_end = sequence.interrupted()
            if delta_at_end is not None:
                reports.append(Report(sequence.job, delta_at_end, sequence.outcome))
                self._leave(sequence)
        reports += self._lane.end_interrupted()

    def _start_waiting(self) -> None:
        for start in self._scheduler.admit():
            sequence, slot = start.sequence, start.sequence.held_slot
            self.counts.note_start(len(sequence.prefix), start.tokens)
            if start.source == slot:
                self._cache.cut(slot, start.tokens)
            else:
                self._engine.start(slot, sequence.prompt)
                self._copy(start)
        for start in self._scheduler.late_starts():
            self.counts.note_start(0, start.tokens)
            self._copy(start)

    def _copy(self, start: CacheStart) -> None:
        if start.source is not None:
            self._cache.copy(start.source, start.sequence.held_slot, start.tokens)

    def _close_hole(self) -> None:
        hole = self._scheduler.hole_to_close()
        if hole is not None:
            sequence, target = hole
            self._cache.move(sequence.held_slot, target)
            self._scheduler.moved(sequence, target)

    def _step(self, reports: list[Report]) -> None:
        planned = self._scheduler.plan()
        if not planned:
            return
        started = time.perf_counter()
        results = iter(self._engine.step([chunk for _, chunk in planned]))
        seconds = time.perf_counter() - started
        self._scheduler.learn(planned, seconds)
        self.counts.note_step(seconds, sum(len(chunk.tokens) for _, chunk in planned))
        for sequence, chunk in planned:
            sequence.position += len(chunk.tokens) - chunk.drafted
            if self._checkpoints is not None and sequence.position == len(sequence.prefix) >= MIN_SHARED_TOKENS:
                self._checkpoints.checkpoint(chunk.slot)  # the prompt is complete: that of the next turn begins with it
            if chunk.samples:
                self._advance(sequence, chunk, next(results), reports)

    def _advance(self, sequence: BatchSequence, chunk: Chunk, first: Sampled, reports: list[Report]) -> None:
        self.counts.note_guesses(chunk.drafted, len(first.accepted))
        for result in (first, *first.accepted):
            if result is not first:
                sequence.position += 1  # the guess before it was right
            if result.error is not None:
                if not isinstance(result.error, InvalidRequest):
                    logger.error("the sampler of sequence %s failed", sequence.id, exc_info=result.error)
                self._note_failure(sequence.job, result.error)
            delta = sequence.advance(result, self._engine.limits.context_tokens)
            reports.append(Report(sequence.job, delta, sequence.outcome))
            if sequence.outcome is not None:
                break
        if sequence.position < chunk.position + len(chunk.tokens):
            self._cache.cut(sequence.held_slot, sequence.position)
        if sequence.outcome is not None:
            self._leave(sequence)
        else:
            self._check_trial(sequence)

    def _take_solo_turn(self, reports: list[Report]) -> None:
        reports += self._lane.turn(self._scheduler.trial_sequence_id)
        if self._lane.current is not None:
            self._check_trial(self._lane.current)

    def _check_trial(self, sequence: BatchSequence) -> None:
        trial = self._trial
        if trial is None or trial.sequence_id != sequence.id or trial.tokens is None:
            return
        if sequence.new_tokens >= trial.tokens:
            trial.tokens = None
            self._host.pass_trial(sequence.job)

    def _fail_batch(self, error: Exception, reports: list[Report]) -> None:
        for sequence in list(self._scheduler.running):
            reports.append(Report(sequence.job, sequence.fail(error), sequence.outcome))
            self._scheduler.remove(sequence)
            with contextlib.suppress(Exception):  # the failure is reported already; freeing is tried for each
                self._engine.release(sequence.slot, sequence.prompt)
        self._engine.reset()
        self._scheduler.prefix_cache.clear()

    def _leave(self, sequence: BatchSequence) -> None:
        stays = self._scheduler.remove(sequence)
        self._engine.release(None if stays else sequence.slot, sequence.prompt)

    @property
    def _cache(self) -> SlotCache:
        cache = self._engine.slot_cache
        assert cache is not None, "the scheduler moves, copies and cuts only where the engine can"
        return cache
