"""The batch loop with an engine that checks the rule of the cache at every step."""

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence

import pytest

from app.errors import PromptTooLong
from app.jobs.job import FinishReason, Status
from tests.waiting import until
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.batching.scripted_engine import ScriptedEngine, prompt
from workers.batching.loop import BatchLoop
from workers.batching.sequence import ResumeState
from workers.engines.base import Chunk, Sampled


def test_more_sequences_than_slots_all_get_their_text_and_leave_no_cell(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    ids = [f"s{number}" for number in range(20)]
    for number, sequence_id in enumerate(ids):
        loop.submit(make_sequence(sequence_id, prompt(f"text {number}", length=1 + number)))
    loop.start()
    collected.wait_for(*ids)
    assert [collected.texts[i] for i in ids] == [f"text {number}" for number in range(20)]
    assert all(outcomes[0].status is Status.SUCCEEDED for outcomes in collected.outcomes.values())
    loop.stop()
    assert engine.used_cells() == 0


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.submit(make_sequence("short", prompt("abcdefgh", length=1)))
    loop.submit(make_sequence("long", prompt("xyz", length=40)))
    loop.start()
    collected.wait_for("short", "long")
    assert engine.steps[0] == [(0, 1), (1, 15)]
    assert engine.steps[1] == [(0, 1), (1, 15)], "the decoding row comes first, the chunk takes what is left"
    assert collected.texts == {"short": "abcdefgh", "long": "xyz"}


def test_a_newcomer_joins_a_running_batch(loop: BatchLoop, engine: ScriptedEngine, collected: Collected) -> None:
    loop.start()
    loop.submit(make_sequence("first", prompt("a" * 60, length=1, max_tokens=60)))
    while not collected.texts["first"]:
        time.sleep(0.001)
    loop.submit(make_sequence("second", prompt("b", length=1)))
    collected.wait_for("first", "second")
    assert collected.texts["second"] == "b"


def test_a_canceled_sequence_keeps_its_text_and_frees_its_slot(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    sequence = make_sequence("s", prompt("a" * 63, length=1, max_tokens=63))
    loop.submit(sequence)
    sequence.job.cancel_requested = True
    loop.start()
    collected.wait_for("s")
    (outcome,) = collected.outcomes["s"]
    assert (outcome.status, outcome.finish_reason) == (Status.CANCELED, FinishReason.CANCELED)
    loop.stop()
    assert engine.cells == {}


def test_a_sequence_that_waits_for_a_slot_can_be_canceled(collected: Collected) -> None:
    engine = ScriptedEngine(slots=1)
    loop = BatchLoop(engine, Host(collected.publish))
    loop.submit(make_sequence("running", prompt("a" * 50, max_tokens=50)))
    waiting = make_sequence("waiting", prompt("b"))
    loop.submit(waiting)
    waiting.job.cancel_requested = True
    loop.start()
    collected.wait_for("running", "waiting")
    assert collected.outcomes["waiting"][0].status is Status.CANCELED
    assert collected.texts["running"] == "a" * 50
    loop.stop()


def test_a_failing_step_fails_its_batch_and_the_loop_continues(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    engine.fail_next_step = RuntimeError("the device is gone")
    for name in ("one", "two"):
        loop.submit(make_sequence(name, prompt("text")))
    loop.start()
    collected.wait_for("one", "two")
    error = collected.outcomes["one"][0].error
    assert error is not None and error.code == "engine_error" and "device" not in error.message
    loop.submit(make_sequence("three", prompt("text")))
    collected.wait_for("three")
    assert collected.texts["three"] == "text"
    assert (engine.resets, {name: len(outcomes) for name, outcomes in collected.outcomes.items()}) == (
        1,
        {"one": 1, "two": 1, "three": 1},
    )


def test_a_row_whose_sampler_fails_fails_no_other_row(loop: BatchLoop, collected: Collected) -> None:
    loop.submit(make_sequence("bad", prompt("ab!cd")))
    loop.submit(make_sequence("good", prompt("abcd")))
    loop.start()
    collected.wait_for("bad", "good")
    assert collected.outcomes["bad"][0].status is Status.FAILED
    assert collected.texts == {"bad": "ab", "good": "abcd"}


def test_a_loop_that_waits_holds_nothing_of_a_sequence_that_has_ended(loop: BatchLoop, collected: Collected) -> None:
    sequence = make_sequence("ended", prompt("abc"))
    held = weakref.ref(sequence)
    loop.submit(sequence)
    del sequence
    loop.start()
    collected.wait_for("ended")
    until(lambda: gc.collect() >= 0 and held() is None)


def test_a_sequence_that_runs_out_of_time_fails_with_its_partial_text(loop: BatchLoop, collected: Collected) -> None:
    loop.submit(make_sequence("late", prompt("abc"), timeout_seconds=-1.0))
    loop.start()
    collected.wait_for("late")
    outcome = collected.outcomes["late"][0]
    assert (outcome.status, outcome.finish_reason) == (Status.FAILED, FinishReason.TIMEOUT)
    assert outcome.error is not None and outcome.error.code == "timeout"


def test_stop_strings_max_tokens_and_a_full_context_end_a_sequence(loop: BatchLoop, collected: Collected) -> None:
    loop.submit(make_sequence("stop", prompt("one two three", stop=(" tw",))))
    loop.submit(make_sequence("length", prompt("one two three", max_tokens=5)))
    loop.submit(make_sequence("bound", prompt("one two three", length=3, max_length=7)))
    loop.submit(make_sequence("full", prompt("x" * 100, length=60, max_tokens=100)))
    loop.start()
    collected.wait_for("stop", "length", "bound", "full")
    assert collected.texts == {"stop": "one", "length": "one t", "bound": "one ", "full": "xxxx"}
    reasons = {name: outcomes[0].finish_reason for name, outcomes in collected.outcomes.items()}
    assert reasons == {
        "stop": FinishReason.STOP,
        "length": FinishReason.LENGTH,
        "bound": FinishReason.LENGTH,
        "full": FinishReason.LENGTH,
    }


def test_a_hole_that_lasts_is_closed_by_moving_the_highest_sequence_down(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.submit(make_sequence("first", prompt("a" * 40, length=1, max_tokens=40)))
    loop.submit(make_sequence("short", prompt("a", length=1)))
    loop.submit(make_sequence("long", prompt("b" * 40, length=1, max_tokens=40)))
    loop.start()
    collected.wait_for("first", "short", "long")
    assert engine.moves == [(2, 1)]
    assert collected.texts["long"] == "b" * 40


def test_an_api_error_keeps_its_code_and_fields() -> None:
    sequence = make_sequence("s", prompt("text"))
    sequence.fail(PromptTooLong("too long", errors={"prompt": ["too long"]}))
    assert sequence.outcome is not None and sequence.outcome.error is not None
    assert (sequence.outcome.error.code, sequence.outcome.error.errors) == ("prompt_too_long", {"prompt": ["too long"]})


def test_during_a_trial_the_other_sequences_wait_and_continue_afterwards(
    engine: ScriptedEngine, collected: Collected
) -> None:
    host = Host(collected.publish)
    loop = BatchLoop(engine, host)
    loop.submit(make_sequence("held", prompt("abcdef", length=1)))
    loop.pause_others("tried", tokens=3)
    loop.submit(make_sequence("tried", prompt("uvwxyz", length=1)))
    loop.start()
    collected.wait_for("tried")
    assert host.passed == ["tried"]
    assert "held" not in collected.outcomes
    assert all(slots == [(1, 1)] for slots in engine.steps if slots), "only the slot of the one on trial steps"
    loop.release_others()
    collected.wait_for("held")
    assert collected.texts == {"held": "abcdef", "tried": "uvwxyz"}
    loop.stop()


def test_a_pause_begins_when_the_step_that_runs_has_ended(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepping, may_end = threading.Event(), threading.Event()
    step = engine.step

    def slow_step(chunks: Sequence[Chunk]) -> list[Sampled]:
        stepping.set()
        assert may_end.wait(10)
        return step(chunks)

    monkeypatch.setattr(engine, "step", slow_step)
    loop.submit(make_sequence("held", prompt("abcdef")))
    loop.start()
    assert stepping.wait(10)
    pause = threading.Thread(target=loop.pause_all)
    pause.start()
    pause.join(0.05)
    assert pause.is_alive(), "a step runs"
    may_end.set()
    pause.join(10)
    assert len(engine.steps) == 1
    loop.release_others()
    collected.wait_for("held")


def test_a_held_sequence_can_still_be_canceled(loop: BatchLoop, engine: ScriptedEngine, collected: Collected) -> None:
    held = make_sequence("held", prompt("abcdef", length=1))
    loop.submit(held)
    loop.pause_others("never comes", tokens=None)
    loop.start()
    held.job.cancel_requested = True
    loop.wake()
    collected.wait_for("held")
    assert collected.outcomes["held"][0].status is Status.CANCELED


def test_a_sequence_continues_after_earlier_tokens_as_if_uninterrupted(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    before = ResumeState(tokens=list(b"abc"), pieces=[b"a", b"b", b"c"], text="abc")
    loop.submit(make_sequence("s", prompt("abcdef", length=20), earlier=before))
    loop.start()
    collected.wait_for("s")
    assert collected.texts["s"] == "def"
    assert engine.steps[:2] == [[(0, 16)], [(0, 7)]], "20 tokens of the prompt and 3 earlier ones, in chunks"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
@pytest.mark.parametrize("on_cpu", [True, False])
def test_only_an_engine_that_computes_on_the_cpus_becomes_nicer(collected: Collected, on_cpu: bool) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    values: list[int] = []

    class RecordsNiceness(ScriptedEngine):
        @property
        def computes_on_cpu(self) -> bool:
            return on_cpu

        def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
            values.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().step(chunks)

    loop = BatchLoop(RecordsNiceness(), Host(collected.publish), nice=19)
    loop.submit(make_sequence("s", prompt("text")))
    loop.start()
    collected.wait_for("s")
    loop.stop()
    assert set(values) == {19 if on_cpu else own}
