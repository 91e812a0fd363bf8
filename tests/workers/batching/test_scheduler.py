"""Which sequences run in a step, and in which slots."""

from tests.workers.batching.loop_host import make_sequence
from tests.workers.batching.scripted_engine import prompt
from workers.batching.scheduler import HOLE_STEPS, Scheduler
from workers.batching.sequence import BatchSequence
from workers.engines.base import Limits


def make(slots: int = 4, budget: int = 16, *, moves: bool = True) -> Scheduler:
    return Scheduler(Limits(slots=slots, context_tokens=64, max_batched_tokens=budget), keeps_order=moves)


def start(scheduler: Scheduler, *names: str, length: int = 1) -> list[BatchSequence]:
    sequences = [make_sequence(name, prompt("text", length=length)) for name in names]
    for sequence in sequences:
        scheduler.add(sequence)
    list(scheduler.admit())
    return sequences


def decode(sequence: BatchSequence) -> None:
    sequence.position = len(sequence.prompt.tokens)
    sequence.generated.append(7)


def test_a_newcomer_takes_the_lowest_slot_that_keeps_the_running_ones_together() -> None:
    scheduler = make(slots=8)
    a, b, c, d = start(scheduler, "a", "b", "c", "d")
    assert [s.slot for s in (a, b, c, d)] == [0, 1, 2, 3]
    scheduler.remove(a)
    scheduler.remove(c)
    assert [s.slot for s in start(scheduler, "hole", "edge", "other edge")] == [2, 0, 4]


def test_where_order_does_not_matter_a_newcomer_takes_any_slot() -> None:
    scheduler = make(moves=False)
    a, *_ = start(scheduler, "a", "b", "c")
    scheduler.remove(a)
    assert [s.slot for s in start(scheduler, "d", "e")] == [0, 3]


def test_sequences_beyond_the_slots_wait_in_order() -> None:
    scheduler = make(slots=2)
    a, b, c, d = start(scheduler, "a", "b", "c", "d")
    assert (c.slot, d.slot) == (None, None)
    scheduler.remove(b)
    assert [copy.sequence for copy in scheduler.admit()] == [c]
    assert (a.slot, c.slot) == (0, 1)


def test_the_token_budget_goes_to_decoding_rows_first_then_to_prompts_in_order_of_arrival() -> None:
    scheduler = make(budget=10)
    (a,) = start(scheduler, "a")
    decode(a)
    start(scheduler, "b", "c", length=6)
    assert [(s.id, len(chunk.tokens), chunk.samples) for s, chunk in scheduler.plan()] == [
        ("a", 1, True),
        ("b", 6, True),
        ("c", 3, False),
    ]


def test_two_long_prompts_are_computed_side_by_side_and_a_short_one_leaves_the_rest_of_the_step_to_a_long_one() -> None:
    def chunks(*prompt_tokens: int, budget: int = 512) -> list[int]:
        scheduler = make(budget=budget)
        for number, length in enumerate(prompt_tokens):
            start(scheduler, f"{number}", length=length)
        return [len(chunk.tokens) for _, chunk in scheduler.plan()]

    assert chunks(900) == [512]
    assert chunks(900, 900, 900) == [256, 256]
    assert chunks(900, 20) == [492, 20]
    assert chunks(20, 900, 900) == [20, 492]
    assert chunks(200, 200, 900) == [200, 200, 112]
    assert chunks(900, 900, budget=255) == [255], "short chunks gain nothing"


def test_a_plan_is_ordered_by_slot_whatever_the_order_of_arrival() -> None:
    scheduler = make()
    a, b, _ = start(scheduler, "a", "b", "c")
    decode(b)
    scheduler.remove(a)
    start(scheduler, "late", length=3)
    assert [chunk.slot for _, chunk in scheduler.plan()] == [0, 1, 2]


def test_only_a_hole_that_lasts_is_closed() -> None:
    scheduler = make()
    a, b, c = start(scheduler, "a", "b", "c")
    scheduler.remove(b)
    for _ in range(HOLE_STEPS):
        assert scheduler.hole_to_close() is None
    assert scheduler.hole_to_close() == (c, 1)
    scheduler.moved(c, 1)
    assert (a.slot, c.slot) == (0, 1)
    assert scheduler.hole_to_close() is None
    (d,) = start(scheduler, "d")
    assert d.slot == 2


def test_slots_below_the_running_ones_are_no_hole() -> None:
    scheduler = make()
    a, _ = start(scheduler, "a", "b")
    scheduler.remove(a)
    assert all(scheduler.hole_to_close() is None for _ in range(3 * HOLE_STEPS))


def test_an_engine_that_cannot_move_keeps_its_holes() -> None:
    scheduler = make(moves=False)
    _, b, _ = start(scheduler, "a", "b", "c")
    scheduler.remove(b)
    assert all(scheduler.hole_to_close() is None for _ in range(3 * HOLE_STEPS))


def test_a_solo_sequence_steps_while_the_others_keep_their_slots() -> None:
    scheduler = make()
    a, b = start(scheduler, "a", "b")
    decode(a)
    scheduler.trial_sequence_id = "b"
    assert [sequence.id for sequence, _ in scheduler.plan()] == ["b"]
    assert [s.slot for s in (a, b)] == [0, 1]
    scheduler.trial_sequence_id = None
    assert [sequence.id for sequence, _ in scheduler.plan()] == ["a", "b"]


def test_there_is_no_work_until_the_solo_sequence_arrives() -> None:
    scheduler = make()
    start(scheduler, "a")
    scheduler.trial_sequence_id = "b"
    assert not scheduler.has_work
    start(scheduler, "b")
    assert scheduler.has_work
