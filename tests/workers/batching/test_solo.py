"""Solo sequences, which run one at a time beside the batch."""

import time
from collections.abc import Iterator

import pytest

from app.jobs.job import FinishReason, Status
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.batching.scripted_engine import ScriptedEngine, ScriptedSolo, prompt
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence, ResumeState
from workers.engines.base import Sampled

SOLO = ScriptedSolo()


@pytest.fixture(autouse=True)
def no_solo_sequence_is_left() -> Iterator[None]:
    yield
    assert SOLO.running == []


def solo_sequence(name: str, completion: str, **options: int) -> BatchSequence:
    return make_sequence(name, prompt(completion, solo=SOLO, **options))


def test_solo_sequences_run_one_after_the_other_beside_the_batch(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.submit(solo_sequence("first", "a_b__c"))
    loop.submit(solo_sequence("second", "xyz"))
    loop.submit(make_sequence("batched", prompt("batched")))
    loop.start()
    collected.wait_for("first", "second", "batched")
    assert collected.texts == {"first": "abc", "second": "xyz", "batched": "batched"}
    assert all(outcomes[0].finish_reason is FinishReason.STOP for outcomes in collected.outcomes.values())
    assert list(collected.outcomes) == ["first", "batched", "second"], "the batch steps between the turns"
    assert engine.used_cells() == 0


def test_solo_sequences_take_no_slot(collected: Collected) -> None:
    engine = ScriptedEngine(slots=1)
    loop = BatchLoop(engine, Host(collected.publish))
    loop.submit(make_sequence("batched", prompt("a" * 40, max_tokens=40)))
    loop.submit(solo_sequence("solo", "bc"))
    loop.start()
    collected.wait_for("batched", "solo")
    assert list(collected.outcomes) == ["solo", "batched"]
    loop.stop()


def test_a_solo_sequence_that_fails_affects_no_other(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.submit(solo_sequence("bad", "a!"))
    loop.submit(solo_sequence("good", "ok"))
    loop.submit(make_sequence("batched", prompt("batched")))
    loop.start()
    collected.wait_for("bad", "good", "batched")
    assert collected.outcomes["bad"][0].status is Status.FAILED
    assert (collected.texts["bad"], collected.texts["good"], collected.texts["batched"]) == ("a", "ok", "batched")
    assert engine.resets == 0


def test_running_and_waiting_solo_sequences_can_be_canceled(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    running, waiting = solo_sequence("running", "a" + "_" * 100_000), solo_sequence("waiting", "b")
    loop.submit(running)
    loop.submit(waiting)
    while not collected.texts["running"]:
        time.sleep(0.001)
    waiting.job.cancel_requested = True
    collected.wait_for("waiting")
    assert loop.running_count == 1
    running.job.cancel_requested = True
    collected.wait_for("running")
    assert [collected.outcomes[name][0].status for name in ("running", "waiting")] == [Status.CANCELED] * 2
    assert (collected.texts["running"], SOLO.running) == ("a", [])


def test_the_rest_of_a_turn_is_dropped_when_the_sequence_ends(loop: BatchLoop, collected: Collected) -> None:
    loop.submit(solo_sequence("long", "abcdef", max_tokens=3))
    loop.submit(solo_sequence("next", "z"))
    loop.start()
    collected.wait_for("long", "next")
    assert collected.outcomes["long"][0].finish_reason is FinishReason.LENGTH
    assert collected.texts == {"long": "abc", "next": "z"}


def test_a_solo_sequence_continues_after_earlier_tokens(loop: BatchLoop, collected: Collected) -> None:
    earlier = ResumeState(tokens=list(b"ab"), pieces=[b"a", b"b"], text="ab")
    loop.submit(make_sequence("s", prompt("abcd", solo=SOLO), earlier=earlier))
    loop.start()
    collected.wait_for("s")
    assert collected.texts["s"] == "cd"


def test_a_solo_sequence_on_trial_holds_the_others_and_is_held_by_them(
    engine: ScriptedEngine, collected: Collected
) -> None:
    host = Host(collected.publish)
    loop = BatchLoop(engine, host)
    loop.submit(make_sequence("batched", prompt("abc")))
    loop.submit(solo_sequence("before", "xyz"))
    loop.pause_others("tried", tokens=2)
    loop.submit(solo_sequence("tried", "12345"))
    loop.start()
    collected.wait_for("tried")
    assert host.passed == ["tried"]
    assert engine.steps == []
    assert list(collected.outcomes) == ["tried"]
    loop.release_others()
    collected.wait_for("batched", "before")
    assert collected.texts == {"tried": "12345", "batched": "abc", "before": "xyz"}
    loop.stop()


def test_a_last_token_is_output_and_ends_the_sequence_for_its_reason() -> None:
    sequence = make_sequence("s", prompt("abc"))
    delta = sequence.advance(Sampled(token=1, piece=b"x", finish_reason=FinishReason.LENGTH), context_tokens=64)
    assert delta.text == "x"
    assert sequence.outcome is not None and sequence.outcome.finish_reason is FinishReason.LENGTH
