"""The same sequence many times: computed once, told to each, and each with an end of its own."""

import random
import threading
from collections.abc import Iterator, Sequence

import pytest

from app.jobs.job import FinishReason, Status
from tests.workers.batching.scripted_engine import ScriptedEngine, prompt
from tests.workers.batching.test_loop import Collected
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence as Job
from workers.batching.sequence import Update
from workers.engines.base import Chunk, Sampled

TEXT = "a text that is said to whoever asks for it"


class StepByStep(ScriptedEngine):
    """Takes a step for each permit."""

    def __init__(self, slots: int = 4) -> None:
        super().__init__(slots=slots)
        self.permits = threading.Semaphore(0)
        self.prompts: list[object] = []

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        assert self.permits.acquire(timeout=10)
        return super().step(chunks)

    def release(self, slot: int | None, prompt: object) -> None:
        self.prompts.append(prompt)
        super().release(slot, prompt)  # type: ignore[arg-type]


class Told(Collected):
    """Also when it has been told so much."""

    def wait_for_text(self, sequence_id: str, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.texts[sequence_id] == text, timeout=10), self.texts


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def engine() -> StepByStep:
    return StepByStep()


@pytest.fixture
def loop(engine: StepByStep, told: Told) -> Iterator[BatchLoop]:
    loop = BatchLoop(engine, told.publish)
    loop.start()
    yield loop
    engine.permits.release(1000)
    loop.stop()


def same(name: str, *, key: str = "same", text: str = TEXT, seconds: float = 60.0, solo: bool = False) -> Job:
    return Job(name, prompt(text, solo=solo), timeout_seconds=seconds, key=key)


def rows(engine: ScriptedEngine) -> int:
    return sum(len(step) for step in engine.steps)


def test_what_is_asked_many_times_is_computed_once_and_told_to_all(
    loop: BatchLoop, engine: StepByStep, told: Told
) -> None:
    names = [f"s{number}" for number in range(10)]
    for name in names:
        loop.submit(same(name))
    loop.submit(Job("other", prompt("other"), key="other"))
    engine.permits.release(1000)
    told.wait_for(*names, "other")
    assert {told.texts[name] for name in names} == {TEXT}
    assert all(told.outcomes[name][0].finish_reason is FinishReason.STOP for name in names)
    assert max(len(step) for step in engine.steps) == 2, "ten of the same hold one of four slots"
    assert (loop.follower_count, engine.used_cells(), len(engine.prompts)) == (0, 0, 11), (
        "every prompt is released once"
    )


def test_who_comes_late_gets_what_was_said_and_goes_on(loop: BatchLoop, engine: StepByStep, told: Told) -> None:
    joined = threading.Event()
    loop._on_joined = joined.set
    loop.submit(same("first"))
    engine.permits.release(5)
    told.wait_for_text("first", TEXT[:5])
    late = same("late")
    loop.submit(late)
    engine.permits.release(1)  # it comes while this step runs
    told.wait_for_text("late", TEXT[:6])
    assert joined.is_set() and loop.follower_count == 1
    engine.permits.release(1000)
    told.wait_for("first", "late")
    assert told.texts["late"] == TEXT
    assert (late.usage.completion_tokens, late.new_tokens) == (len(TEXT), len(TEXT) - 6)
    assert (late.usage.prompt_tokens, late.usage.cached_tokens, late.has_joined) == (3, 3, True)
    loop.submit(same("too late"))
    told.wait_for("too late")
    assert told.texts["too late"] == TEXT and rows(engine) == 2 * (len(TEXT) + 1)


@pytest.mark.parametrize("solo", [False, True])
def test_a_leader_that_is_canceled_leaves_what_it_has_computed_to_the_next(told: Told, solo: bool) -> None:
    def publish(updates: list[Update]) -> None:
        told.publish(updates)
        for name, said in (("leader", TEXT[:5]), ("heir", TEXT[:8])):
            if told.texts["third"] == said:
                loop.cancel(name)

    engine = ScriptedEngine()
    loop = BatchLoop(engine, publish)
    leader, heir, third = (same(name, solo=solo) for name in ("leader", "heir", "third"))
    for each in (leader, heir, third):
        loop.submit(each)
    loop.start()
    told.wait_for("leader", "heir", "third")
    loop.stop()
    assert [told.outcomes[name][0].status for name in ("leader", "heir")] == [Status.CANCELED] * 2
    assert told.outcomes["third"][0].status is Status.SUCCEEDED
    assert told.texts == {"leader": TEXT[:5], "heir": TEXT[:8], "third": TEXT}
    assert (leader.usage.completion_tokens, heir.usage.completion_tokens) == (5, 8)
    steps = engine.turns + 1 if solo else rows(engine)
    assert steps == len(TEXT) + 1, "nothing was computed twice"
    assert (engine.used_cells(), engine.solo, loop.follower_count) == (0, [], 0)


def test_a_leader_that_waits_for_a_slot_leaves_its_turn_to_the_next(engine: StepByStep, told: Told) -> None:
    engine = StepByStep(slots=1)
    loop = BatchLoop(engine, told.publish)
    loop.submit(Job("busy", prompt("busy")))
    for name in ("leader", "heir"):
        loop.submit(same(name))
    loop.submit(Job("last", prompt("last")))
    loop.cancel("leader")
    engine.permits.release(1000)
    loop.start()
    told.wait_for("busy", "leader", "heir", "last")
    loop.stop()
    assert list(told.outcomes) == ["leader", "busy", "heir", "last"]
    assert (told.texts["leader"], told.texts["heir"]) == ("", TEXT)


def test_each_has_its_own_patience_and_is_told_what_was_held_back(told: Told) -> None:
    def publish(updates: list[Update]) -> None:
        told.publish(updates)
        for each, tokens in ((hasty, 8), (leader, 9)):
            if len(patient.generated) == tokens:
                each._deadline = 0.0

    loop = BatchLoop(ScriptedEngine(), publish)
    leader, hasty, patient = (
        Job(name, prompt("say stoppable", stop=("stop it",)), key="same") for name in ("leader", "hasty", "patient")
    )
    for each in (leader, hasty, patient):
        loop.submit(each)
    loop.start()
    told.wait_for("leader", "hasty", "patient")
    loop.stop()
    reasons = [told.outcomes[each.id][0].finish_reason for each in (leader, hasty, patient)]
    assert reasons == [FinishReason.TIMEOUT, FinishReason.TIMEOUT, FinishReason.STOP]
    assert told.texts == {"hasty": "say stop", "leader": "say stopp", "patient": "say stoppable"}


@pytest.mark.parametrize("text", ["some text! and more", "step"])
def test_they_fail_together_and_the_next_one_begins_anew(
    loop: BatchLoop, engine: StepByStep, told: Told, text: str
) -> None:
    engine.fail_next_step = RuntimeError("the step fails") if text == "step" else None
    for name in ("leader", "follower"):
        loop.submit(same(name, text=text))
    engine.permits.release(1000)
    told.wait_for("leader", "follower")
    for name in ("leader", "follower"):
        assert told.outcomes[name][0].error is not None and told.outcomes[name][0].error.code == "engine_error"
    assert told.texts["leader"] == told.texts["follower"]
    loop.submit(same("next", text="it works"))
    told.wait_for("next")
    assert told.texts["next"] == "it works" and loop.follower_count == 0


def test_whoever_joins_leaves_or_fails_in_whatever_order_everybody_has_one_end_and_the_right_text() -> None:
    """Random orders, by a seed, of an engine that checks whose cells are where."""
    for seed in range(20):
        _play(random.Random(seed))


def _play(chance: random.Random) -> None:
    told, engine = Told(), ScriptedEngine(slots=2, shares_prefixes=True)
    loop = BatchLoop(engine, told.publish)
    texts = {key: key * chance.randint(1, 30) for key in "abc"}
    jobs: dict[str, str] = {}
    waiting: list[tuple[str, str]] = [(f"{key}{number}", key) for key in texts for number in range(6)]
    names = [name for name, _ in waiting]
    chance.shuffle(waiting)
    canceled: set[str] = set()

    def publish(updates: list[Update]) -> None:  # what happens between two steps
        told.publish(updates)
        for _ in range(chance.randint(1, 2)):
            if waiting:
                add()
            elif jobs:
                canceled.add(name := chance.choice(list(jobs)))
                loop.cancel(name)

    def add() -> None:
        name, key = waiting.pop()
        jobs[name] = key
        loop.submit(Job(name, prompt(texts[key], solo=key == "c", length=34), key=key))

    loop._publish = publish
    for _ in range(4):
        add()
    loop.start()
    told.wait_for(*names)
    loop.stop()
    for name, key in jobs.items():
        [outcome] = told.outcomes[name]
        if outcome.status is Status.SUCCEEDED:
            assert told.texts[name] == texts[key]
        else:
            assert outcome.status is Status.CANCELED and name in canceled and texts[key].startswith(told.texts[name])
    assert (loop.follower_count, engine.used_cells() - loop._scheduler.prefix_cache.cells) == (0, 0)
