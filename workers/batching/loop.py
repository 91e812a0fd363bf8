"""The batch loop: one thread that lets sequences join and leave between any two steps of the engine."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable

from workers.batching.remote import RemoteLane
from workers.batching.request_coalescing import RequestCoalescer
from workers.batching.scheduler import Copy, Scheduler
from workers.batching.sequence import BatchSequence, Update
from workers.batching.solo import SoloLane
from workers.batching.speculation import Speculation
from workers.engines.base import Chunk, Engine, Sampled
from workers.niceness import set_niceness

Publish = Callable[[list[Update]], None]
Command = Callable[[], None]

logger = logging.getLogger(__name__)


class BatchLoop:
    """Runs an engine. `publish` hears, from the loop's thread, what each step brought; it must not block.

    Every submitted sequence gets exactly one update with an outcome, unless it is dropped.

    on_joined: called, from the loop's thread, when one follows another with its key and needs no slot.
    speculates: tokens may be guessed, where the engine can verify them and it pays.
    nice: of its thread, and those the engine starts from it, where they compute on CPUs.
    """

    def __init__(
        self,
        engine: Engine,
        publish: Publish,
        on_joined: Command | None = None,
        *,
        speculates: bool = True,
        nice: int = 0,
    ) -> None:
        self._engine = engine
        self._nice = nice
        self._publish = publish
        self._on_joined = on_joined or _nothing
        self._speculation = Speculation(engine.limits) if speculates and engine.verifies_drafts else None
        self._scheduler = Scheduler(
            engine.limits,
            keeps_order=engine.moves_slots,
            shares_prefixes=engine.shares_prefixes,
            speculation=self._speculation,
        )
        self._lane = SoloLane(engine)
        self._followers = RequestCoalescer()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._elsewhere = RemoteLane(engine, self._commands.put)
        self._stopping = False
        self._cells_when_idle = 0
        self._trial_tokens: int | None = None
        self._on_passed: Command = _nothing
        self._thread = threading.Thread(target=self._run, name="batch-loop", daemon=True)

    @property
    def running_count(self) -> int:
        return len(self._scheduler.running) + (self._lane.current is not None) + len(self._elsewhere)

    @property
    def follower_count(self) -> int:
        """Sequences that another one is computed for; they hold no slot."""
        return self._followers.count

    @property
    def used_cells(self) -> int:
        """Cache cells held by sequences; with none running, what the engine itself counts: anything but 0 is a leak."""
        running = list(self._scheduler.running)
        return sum(sequence.position for sequence in running) if running else self._cells_when_idle

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step; sequences still running get no outcome."""

        def stop() -> None:
            self._stopping = True

        self._commands.put(stop)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, sequence: BatchSequence) -> None:
        self._commands.put(lambda: self._add(sequence))

    def cancel(self, sequence_id: str) -> None:
        """End a sequence before its next step, with outcome `canceled`. Unknown ids are ignored."""

        def cancel() -> None:
            for sequence in (*self._scheduler, *self._lane, *self._elsewhere, *self._followers):
                if sequence.id == sequence_id:
                    sequence.cancel_requested = True

        self._commands.put(cancel)

    def hold_others(self, sequence_id: str, *, tokens: int | None, on_passed: Command) -> None:
        """Until `release_others`, step only this sequence (which may be still to come); the others wait in their slots.

        on_passed: called once, from the loop's thread, when it has brought so many new tokens (None: never).
        """

        def hold() -> None:
            self._scheduler.solo_sequence_id = sequence_id
            self._trial_tokens, self._on_passed = tokens, on_passed

        self._commands.put(hold)

    def release_others(self) -> None:
        def release() -> None:
            self._scheduler.solo_sequence_id = None

        self._commands.put(release)

    def _run(self) -> None:
        if self._engine.computes_on_cpu:
            set_niceness(self._nice)  # before the engine's own threads start: they inherit it
        while self._obey():
            updates: list[Update] = []
            try:
                self._end_interrupted(updates)
                self._start_waiting()
                self._close_hole()
                self._step(updates)
                self._take_exclusive_turn(updates)
                updates += self._elsewhere.take_news()
            except Exception as error:
                running = len(self._scheduler.running)
                logger.exception("a step of %d sequences failed; their requests fail, the worker goes on", running)
                self._fail_batch(error, updates)
            if updates:
                self._publish([*updates, *self._followers.spread(updates)])
        self._lane.close()
        self._elsewhere.close()

    def _add(self, sequence: BatchSequence) -> None:
        own = sequence.prompt
        if own.elsewhere:
            self._begin_elsewhere(sequence)
            return
        so_far = self._followers.join(sequence)
        if so_far is None:
            self._line_of(sequence).add(sequence)
            return
        self._engine.release(None, own)
        self._publish([so_far])
        self._on_joined()

    def _line_of(self, sequence: BatchSequence) -> SoloLane | Scheduler:
        return self._lane if sequence.prompt.solo else self._scheduler

    def _obey(self) -> bool:
        """Take all commands; with nothing to run, wait for one. False: stop."""
        if not (self._scheduler.has_work or self._lane.may_go_on(self._scheduler.solo_sequence_id)):
            if not self._scheduler.running:
                self._cells_when_idle = self._engine.used_cells() - self._scheduler.prefix_cache.cells
            with contextlib.suppress(queue.Empty):  # somebody's time is up
                self._commands.get(timeout=self._elsewhere.patience_seconds)()
        while not self._commands.empty():
            self._commands.get()()
        return not self._stopping

    def _end_interrupted(self, updates: list[Update]) -> None:
        updates += self._followers.end_interrupted()
        for end, heir in self._followers.successions():
            self._line_of(heir).replace(end.sequence, heir)
            updates.append(end)
        for sequence in self._scheduler.interrupted_before_start():
            updates.append(self._ended(sequence))
        for sequence in list(self._scheduler.running):
            update = sequence.interrupted()
            if update is not None:
                updates.append(update)
                self._leave(sequence)
        updates += self._lane.end_interrupted()
        updates += self._elsewhere.end_interrupted()

    def _start_waiting(self) -> None:
        for copy in self._scheduler.admit():
            sequence, slot = copy.sequence, _slot(copy.sequence)
            if copy.source == slot:
                self._engine.cut(slot, copy.tokens)
            else:
                self._engine.start(slot, sequence.prompt)
                self._copy(copy)
        for copy in self._scheduler.late_copies():
            self._copy(copy)

    def _copy(self, copy: Copy) -> None:
        if copy.source is not None:
            self._engine.copy(copy.source, _slot(copy.sequence), copy.tokens)

    def _close_hole(self) -> None:
        hole = self._scheduler.hole_to_close()
        if hole is not None:
            sequence, target = hole
            assert sequence.slot is not None
            self._engine.move(sequence.slot, target)
            self._scheduler.moved(sequence, target)

    def _step(self, updates: list[Update]) -> None:
        planned = self._scheduler.plan()
        if not planned:
            return
        chunks = [chunk for _, chunk in planned]
        started = time.perf_counter()
        results = iter(self._engine.step(chunks))
        if self._speculation is not None:
            self._speculation.learn(chunks, time.perf_counter() - started)
        for sequence, chunk in planned:
            sequence.position += len(chunk.tokens) - chunk.drafted
            if chunk.samples:
                self._advance(sequence, chunk, next(results), updates)

    def _advance(self, sequence: BatchSequence, chunk: Chunk, first: Sampled, updates: list[Update]) -> None:
        for result in (first, *first.accepted):
            if result is not first:
                sequence.position += 1  # the guess before it has held
            if result.error is not None:
                logger.error("the sampler of sequence %s failed", sequence.id, exc_info=result.error)
            updates.append(sequence.advance(result, self._engine.limits.context_tokens))
            if sequence.outcome is not None:
                break
        if sequence.position < chunk.position + len(chunk.tokens):
            self._engine.cut(_slot(sequence), sequence.position)
        if sequence.outcome is not None:
            self._leave(sequence)
        else:
            self._judge(sequence)

    def _take_exclusive_turn(self, updates: list[Update]) -> None:
        updates += self._lane.turn(self._scheduler.solo_sequence_id)
        if self._lane.current is not None:
            self._judge(self._lane.current)

    def _begin_elsewhere(self, sequence: BatchSequence) -> None:
        """Nothing of it runs here that could take this worker down: a trial is passed with that."""
        self._elsewhere.add(sequence)
        if sequence.id == self._scheduler.solo_sequence_id and self._trial_tokens is not None:
            self._trial_tokens = None
            self._on_passed()

    def _judge(self, sequence: BatchSequence) -> None:
        if sequence.id != self._scheduler.solo_sequence_id or self._trial_tokens is None:
            return
        if sequence.new_tokens >= self._trial_tokens:
            self._trial_tokens = None
            self._on_passed()

    def _fail_batch(self, error: Exception, updates: list[Update]) -> None:
        for sequence in list(self._scheduler.running):
            updates.append(sequence.fail(error))
            self._scheduler.remove(sequence)
            with contextlib.suppress(Exception):  # the failure is told already; freeing is tried for each
                self._engine.release(sequence.slot, sequence.prompt)
        self._engine.reset()
        self._scheduler.prefix_cache.clear()

    def _leave(self, sequence: BatchSequence) -> None:
        stays = self._scheduler.remove(sequence)
        self._engine.release(None if stays else sequence.slot, sequence.prompt)

    def _ended(self, sequence: BatchSequence) -> Update:
        self._engine.release(None, sequence.prompt)
        return Update(sequence=sequence, outcome=sequence.outcome)


def _slot(sequence: BatchSequence) -> int:
    assert sequence.slot is not None
    return sequence.slot


def _nothing() -> None:
    pass
