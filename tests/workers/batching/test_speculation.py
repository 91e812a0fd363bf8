"""When guessed tokens join a step; they change nothing but the number of steps.

The scripted engine fails when it samples a slot with a token in its cache that was not generated.
"""

import random
from typing import Any

import pytest

from app.jobs.job import FinishReason, Status
from app.jobs.sampling import SamplingParams
from tests.waiting import until
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.batching.scripted_engine import ScriptedEngine, prompt
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence
from workers.batching.speculation import Speculation
from workers.batching.step_cost import DraftedSlots, StepCost
from workers.engines.base import Limits, Prompt

ROUND = "the quick brown " * 20  # no three letters come twice within a round


def speculation(*, group: float, row: float, budget: int = 512, context: int = 1000) -> Speculation:
    made = Speculation(Limits(slots=32, context_tokens=context, max_batched_tokens=budget))
    made.cost.group, made.cost.row = group, row
    return made


def decoding(count: int, text: str = ROUND, **sampling: Any) -> list[BatchSequence]:
    """Return sequences that have generated `text` and continue."""
    sequences = [
        make_sequence(f"s{number}", prompt("", length=1, **{"max_tokens": 900, **sampling})) for number in range(count)
    ]
    for slot, sequence in enumerate(sequences):
        sequence.slot = slot
        sequence.generated += text.encode()
        sequence.position = len(text)
    return sequences


def lengths(drafts: dict[str, list[int]]) -> set[int]:
    return set(map(len, drafts.values()))


def test_where_a_row_costs_nothing_every_guess_joins_the_step() -> None:
    assert lengths(speculation(group=1, row=0).drafts(decoding(4))) == {32}


def test_where_a_row_costs_half_a_step_only_a_nearly_sure_guess_joins_it() -> None:
    on_two_cores = speculation(group=1, row=1)
    assert lengths(on_two_cores.drafts(decoding(1))) == {8}
    assert on_two_cores.drafts(decoding(1, "abc1 abc")) == {}


def test_where_rows_fill_the_machine_no_guess_joins_the_step() -> None:
    assert speculation(group=1, row=1).drafts(decoding(16)) == {}


def test_a_sequence_without_a_guess_decodes_beside_one_with_a_guess() -> None:
    sure, without = decoding(1)[0], decoding(2, "abcdefgh")[1]
    assert speculation(group=1, row=0.01).drafts([sure, without]).keys() == {"s0"}


def test_the_guesses_of_few_do_not_hold_up_many_others() -> None:
    as_measured = speculation(group=9, row=1)
    repeating, others = decoding(6), decoding(8, "abcdefgh")
    assert as_measured.drafts([*repeating[:3], *others[:5]]) == {}, "these three alone would be three times as fast"
    assert as_measured.drafts([*repeating, *others[6:]]).keys() == {sequence.id for sequence in repeating}


def test_each_block_of_neighbours_with_guesses_counts_as_a_group_of_its_own() -> None:
    def groups(*slots: int) -> int:
        drafted = DraftedSlots()
        for slot in slots:
            drafted.add(slot)
        return drafted.groups(8)

    assert (groups(), groups(*range(8))) == (1, 1), "all rows are equal in number"
    assert (groups(4, 2, 3), groups(0, 2), groups(0, 2, 1)) == (2, 3, 2)


def test_all_drafts_of_a_step_have_one_length_and_end_where_the_text_must() -> None:
    free = speculation(group=1, row=0, context=330)
    assert lengths(free.drafts(decoding(2, max_tokens=400))) == {8}, "ten cells are left"
    assert lengths(free.drafts(decoding(1, max_tokens=324))) == {3}, "the fourth token is sampled after them"
    assert free.drafts(decoding(1, max_tokens=321)) == {}
    assert lengths(speculation(group=1, row=0, budget=20).drafts(decoding(2))) == {8}


def test_the_cost_of_a_row_is_learned_from_steps() -> None:
    chance, cost = random.Random(1), StepCost()
    for _ in range(400):
        groups, rows = chance.choice([(1, 1), (1, 1), (1, 9), (2, 12), (1, 17)])
        cost.learn(groups, rows, (5 * groups + 0.2 * rows) * chance.uniform(0.9, 1.1))
    assert (cost.group, cost.row) == (pytest.approx(5, rel=0.15), pytest.approx(0.2, rel=0.3))


def test_interrupted_steps_do_not_exclude_a_sure_guess_for_good() -> None:
    cost = StepCost()
    for _ in range(50):
        cost.learn(1, 1, 1.0)
        cost.learn(1, 17, 1000.0)
    noisy = speculation(group=cost.group, row=cost.row)
    assert noisy.drafts(decoding(1)), "a row is never dearer than a step"


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(
        slots=4, context_tokens=1000, max_batched_tokens=256, shares_prefixes=True, verifies_drafts=True
    )


@pytest.fixture
def loop(loop: BatchLoop, monkeypatch: pytest.MonkeyPatch) -> BatchLoop:
    fix_cost(loop, monkeypatch)
    return loop


def fix_cost(loop: BatchLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row costs a hundredth of a step, however long the scripted ones take."""
    assert loop._scheduler.speculation is not None
    loop._scheduler.speculation.cost.group, loop._scheduler.speculation.cost.row = 1.0, 0.01
    monkeypatch.setattr(StepCost, "learn", lambda *_: None)


def test_a_text_that_repeats_takes_fewer_steps_than_tokens_and_is_the_same(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    odd = ROUND[:100] + "the quack " + ROUND[:100]
    sequences = [
        make_sequence("even", prompt(ROUND, max_tokens=900)),
        make_sequence("odd", prompt(odd, max_tokens=900)),
    ]
    for sequence in sequences:
        loop.submit(sequence)
    loop.start()
    collected.wait_for("even", "odd")
    assert collected.texts == {"even": ROUND, "odd": odd}
    assert [s.usage.completion_tokens for s in sequences] == [len(ROUND), len(odd)]
    assert len(engine.steps) < len(ROUND) / 4


def test_a_loop_that_may_not_speculate_makes_a_step_for_each_token(
    engine: ScriptedEngine, collected: Collected
) -> None:
    loop = BatchLoop(engine, Host(collected.publish), speculates=False)
    loop.submit(make_sequence("s", prompt(ROUND, max_tokens=900)))
    loop.start()
    collected.wait_for("s")
    loop.stop()
    assert len(engine.steps) == len(ROUND) + 1


def test_a_sequence_also_ends_within_a_run_of_guesses(loop: BatchLoop, collected: Collected) -> None:
    late = ROUND[:92] + "and stop here" + ROUND
    loop.submit(make_sequence("late stop", prompt(late, stop=("stop",), max_tokens=900)))
    loop.submit(make_sequence("length", prompt(ROUND, max_tokens=77)))
    loop.submit(make_sequence("full", prompt(ROUND * 4, length=900, max_tokens=999)))
    loop.submit(make_sequence("fails", prompt(ROUND[:200] + "!", max_tokens=900)))
    loop.submit(make_sequence("ends", prompt(ROUND[:201], max_tokens=900)))
    loop.start()
    names = ("late stop", "length", "full", "fails", "ends")
    collected.wait_for(*names)
    assert collected.texts["late stop"] == ROUND[:92] + "and "
    assert collected.texts["length"] == ROUND[:77]
    assert collected.texts["full"] == (ROUND * 4)[:100]
    assert (collected.texts["fails"], collected.texts["ends"]) == (ROUND[:200], ROUND[:201])
    assert collected.outcomes["fails"][0].status is Status.FAILED
    reasons = [collected.outcomes[name][0].finish_reason for name in ("length", "full", "ends")]
    assert reasons == [FinishReason.LENGTH, FinishReason.LENGTH, FinishReason.STOP]


def test_a_sequence_on_trial_may_speculate_and_passes(loop: BatchLoop, host: Host, collected: Collected) -> None:
    loop.submit(make_sequence("held", prompt(ROUND, max_tokens=900)))
    loop.pause_others("tried", tokens=70)
    loop.submit(make_sequence("tried", prompt(ROUND, max_tokens=900)))
    loop.start()
    until(lambda: host.passed == ["tried"])
    loop.release_others()
    collected.wait_for("held", "tried")
    assert collected.texts == {"held": ROUND, "tried": ROUND}


def test_rejected_guesses_are_never_shared_or_left_behind_in_random_texts(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    chance = random.Random(11)
    loop.start()
    conversations: dict[str, tuple[list[int], str]] = {}
    for number in range(200):
        before: list[int] = [1] * chance.choice([3, 40, 60])
        if conversations and chance.random() < 0.5:  # the next turn of a conversation
            tokens, answer = chance.choice(list(conversations.values()))
            before = [*tokens, *answer.encode(), 2][:700]
        words = chance.choices(
            ["the quick ", "brown fox ", "brown dog ", "the quick brown fox "], k=chance.randrange(1, 25)
        )
        name, answer = f"s{number}", "".join(words)[: chance.randrange(1, 200)]
        made = Prompt(tokens=before, sampling=SamplingParams(max_tokens=250), state=answer.encode())
        loop.submit(make_sequence(name, made))
        conversations[name] = (before, answer)
        if chance.random() < 0.3:
            collected.wait_for(*conversations)
    collected.wait_for(*conversations)
    assert {name: collected.texts[name] for name in conversations} == {
        name: answer for name, (_, answer) in conversations.items()
    }
    loop.stop()
    assert sum(map(len, engine.cells.values())) == loop._scheduler.prefix_cache.cells
    drafted = [tokens for step in engine.steps for _, tokens in step]
    assert len(engine.steps) < sum(len(answer) for _, answer in conversations.values()) and max(drafted) > 1
