"""Groups of sequences with the same adapters take turns where a step computes one group."""

from dataclasses import replace

import pytest

from app.jobs.job import AdapterUse
from tests.workers.batching.loop_host import make_sequence
from tests.workers.batching.scripted_engine import prompt
from workers.batching.adapter_turns import TURN_SECONDS, AdapterTurns
from workers.batching.scheduler import HOLE_STEPS, Scheduler
from workers.batching.sequence import BatchSequence
from workers.batching.speculation import Speculation
from workers.engines.base import Limits
from workers.engines.runner import RunnerJob

LIMITS = Limits(slots=8, context_tokens=64, max_batched_tokens=16)


def sequence(name: str, adapter: str = "", *, length: int = 1, scale: float = 1.0) -> BatchSequence:
    made = make_sequence(name, prompt("text", length=length))
    uses = (AdapterUse(name=adapter, scale=scale),) if adapter else ()
    made.job.request = replace(made.job.request, adapters=uses)
    made.submitted_at = 0.0
    return made


def start(scheduler: Scheduler, *sequences: BatchSequence) -> None:
    for each in sequences:
        scheduler.add(each)
    list(scheduler.admit())


def names(sequences: object) -> list[str]:
    return [one.id for one in sequences]  # type: ignore[attr-defined]


def test_groups_take_turns_and_the_one_that_has_waited_longest_is_next() -> None:
    now = [0.0]
    turns = AdapterTurns(lambda: now[0])
    stepping = [sequence("a"), sequence("b", "x"), sequence("c", "x", scale=0.5), sequence("d", "x")]
    seen = []
    for _ in range(8):
        seen.append(names(turns.next_group(stepping)))
        assert turns.has_switched is (len(seen) > 1 and len(seen) % 2 == 1)
        now[0] += 0.6 * TURN_SECONDS
    assert seen == [["a"], ["a"], ["b", "d"], ["b", "d"], ["c"], ["c"], ["a"], ["a"]]


def test_a_group_alone_steps_on_without_a_switch() -> None:
    now = [0.0]
    turns = AdapterTurns(lambda: now[0])
    alone = [sequence("a", "x")]
    for number in range(5):
        assert names(turns.next_group(alone)) == ["a"]
        assert turns.has_switched is (number == 0)
        now[0] += TURN_SECONDS


def test_a_group_that_ends_gives_its_turn_away_at_once() -> None:
    turns = AdapterTurns(lambda: 0.0)
    a, b = sequence("a", "x"), sequence("b", "y")
    assert names(turns.next_group([a, b])) == ["a"]
    assert names(turns.next_group([b])) == ["b"]
    assert turns.next_group([]) == []


def test_a_step_has_one_group_where_the_engine_needs_that_and_all_where_it_does_not() -> None:
    for mixes in (True, False):
        scheduler = Scheduler(LIMITS, keeps_order=True, mixes_adapters=mixes)
        start(scheduler, sequence("a"), sequence("b", "x"), sequence("c"))
        assert sorted(names(one for one, _ in scheduler.plan())) == (["a", "b", "c"] if mixes else ["a", "c"])


def test_the_sequences_of_a_group_lie_side_by_side() -> None:
    scheduler = Scheduler(LIMITS, keeps_order=True, mixes_adapters=False)
    groups = [sequence(f"{name}{number}", name) for number in range(2) for name in "abcd"]
    start(scheduler, *groups)
    slots = {one.id: one.slot for one in groups}
    assert sorted(slots.values(), key=str) == [*range(8)]
    assert all(abs((slots[f"{name}0"] or 0) - (slots[f"{name}1"] or 0)) == 1 for name in "abcd")


def test_a_hole_in_a_group_is_closed_and_a_gap_between_groups_is_none() -> None:
    scheduler = Scheduler(LIMITS, keeps_order=True, mixes_adapters=False)
    a, b, c, other = sequence("a", "x"), sequence("b", "x"), sequence("c", "x"), sequence("d", "y")
    start(scheduler, a, b, c, other)
    assert ([one.slot for one in (a, b, c)], other.slot) == ([0, 1, 2], 7)
    assert all(scheduler.hole_to_close() is None for _ in range(2 * HOLE_STEPS))
    scheduler.remove(b)
    closed = [hole for _ in range(HOLE_STEPS + 1) if (hole := scheduler.hole_to_close())]
    assert closed == [(c, 1)]


def test_the_cost_of_steps_is_not_learned_from_the_first_step_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[float] = []
    speculation = Speculation(LIMITS)
    monkeypatch.setattr(speculation, "learn", lambda chunks, seconds: learned.append(seconds))
    scheduler = Scheduler(LIMITS, keeps_order=True, mixes_adapters=False, speculation=speculation)
    a = sequence("a", "x")
    start(scheduler, a)
    for seconds in (1.0, 2.0, 3.0):
        scheduler.learn(scheduler.plan(), seconds)
    assert learned == [2.0, 3.0]


def test_what_is_computed_with_an_adapter_has_a_scope_of_its_own() -> None:
    plain = sequence("a").job.request
    requests = [plain, sequence("b", "x").job.request, sequence("c", "x", scale=0.5).job.request]
    later = replace(plain, adapters=(AdapterUse(name="x", scale=1.0, version="2"),))
    scopes = [RunnerJob("id", each, scope="me").scope for each in (*requests, later)]
    assert len(set(scopes)) == 4 and scopes[0] == "me"
    assert RunnerJob("id", requests[1], scope="you").scope not in scopes
