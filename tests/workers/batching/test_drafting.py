"""A draft model guesses where the text has no guess and time is saved; it changes nothing but the number of steps."""

import random
from itertools import pairwise
from typing import Any

import pytest

from app.jobs.job import FinishReason
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.batching.scripted_draft import DraftedEngine, ScriptedDraft
from tests.workers.batching.scripted_engine import prompt
from workers.batching.draft_guesses import DraftGuesses, HitRates
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence
from workers.batching.speculation import Speculation
from workers.batching.step_cost import StepCost
from workers.engines.base import Guess, Limits

LIMITS = Limits(slots=32, context_tokens=1000, max_batched_tokens=512)
LETTERS = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz", k=400))  # no three come twice in a row


def speculation(draft: ScriptedDraft, *, row: float, draft_step: float = 0.1) -> Speculation:
    """A step takes a second and `row` for each row, one of the draft model `draft_step`."""
    made = Speculation(LIMITS, draft)
    assert made.drafting is not None
    made.cost.group, made.cost.row = 1.0, row
    made.drafting.cost.group, made.drafting.cost.row = draft_step, row / 10
    return made


def decoding(count: int, text: str = LETTERS, done: int = 50, **sampling: Any) -> list[BatchSequence]:
    """Return sequences that have generated `done` letters of `text`."""
    sequences = [
        make_sequence(f"s{number}", prompt(text, length=1, **{"max_tokens": 900, **sampling}))
        for number in range(count)
    ]
    for slot, sequence in enumerate(sequences):
        sequence.slot = slot
        sequence.generated += text[:done].encode()
        sequence.position = done
    return sequences


@pytest.fixture(autouse=True)
def fixed_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepCost, "learn", lambda *_: None)


def test_where_the_text_has_no_guess_the_model_makes_one() -> None:
    (sequence,) = decoding(1)
    drafts = speculation(ScriptedDraft(1.0), row=0.02).drafts([sequence])
    assert bytes(drafts["s0"]).decode() == LETTERS[50 : 50 + ScriptedDraft.max_tokens]


def test_where_the_text_repeats_the_model_is_not_asked() -> None:
    repeating = decoding(1, "the quick brown " * 20, done=200)
    draft = ScriptedDraft(1.0)
    assert len(speculation(draft, row=0.02).drafts(repeating)["s0"]) == 32
    assert draft.made == 0


def test_with_many_sequences_rows_are_costly_and_the_model_is_not_asked_until_there_are_few() -> None:
    draft = ScriptedDraft(1.0)
    guessing = speculation(draft, row=0.4)
    assert guessing.drafts(decoding(8)) == {} and draft.made == 0
    assert guessing.drafts(decoding(1)) != {}


def test_a_model_that_is_as_slow_as_the_other_is_not_asked() -> None:
    draft = ScriptedDraft(1.0)
    assert speculation(draft, row=0.02, draft_step=1.0).drafts(decoding(1)) == {}
    assert draft.made == 0


def test_a_long_text_is_read_only_where_that_is_made_up_for() -> None:
    draft = ScriptedDraft(1.0)
    guessing = speculation(draft, row=0.1)
    few_left, many_left = decoding(1, done=300, max_tokens=303), decoding(1, done=300)
    assert guessing.drafts(few_left) == {}
    assert guessing.drafts(many_left) != {}


def test_beside_other_sequences_a_long_text_is_read_in_pieces() -> None:
    draft = ScriptedDraft(1.0)
    guessing = speculation(draft, row=0.1, draft_step=0.01)  # a row of the model takes a hundredth of a step
    sequences = decoding(2, done=390)
    read = [0]
    while not (drafts := guessing.drafts(sequences)):
        read.append(len(draft.held[0]))
    pieces = [later - earlier for earlier, later in pairwise(read)]
    assert pieces == [120, 120, 120] and drafts.keys() == {"s0", "s1"}


def test_a_sequence_whose_guesses_fail_gets_none_and_later_another_attempt() -> None:
    (sequence,) = decoding(1)
    draft = ScriptedDraft(0.0)
    guessing = speculation(draft, row=0.1)
    drafted = []
    for letter in LETTERS[50:350]:
        before = draft.made
        guessing.drafts([sequence])
        drafted.append(draft.made > before)
        sequence.generated.append(ord(letter))
        sequence.position += 1
        for guesser in (sequence.lookup, sequence.draft_guesses):
            assert guesser is not None
            guesser.take(ord(letter))
    assert any(drafted[:10]) and any(drafted[150:])
    assert sum(drafted) < 30


def test_what_holds_is_learned_by_the_confidence_of_the_model() -> None:
    rates = HitRates()
    for _ in range(100):
        rates.learn(Guess(1, 0.5), held=False)
        rates.learn(Guess(1, 0.99), held=True)
    assert rates.of(Guess(2, 0.5)) < 0.1 and rates.of(Guess(2, 0.99)) > 0.97
    assert 0.4 < rates.mean < 0.6
    guesses = DraftGuesses(rates)
    guesses.add(Guess(5, 0.99))
    guesses.add(Guess(6, 0.5))
    assert guesses.expected_hits[0] > 0.9 and guesses.expected_hits[1] - guesses.expected_hits[0] < 0.2
    guesses.take(5)
    assert guesses.tokens == [6]
    guesses.take(7)
    assert guesses.tokens == []


def drafted_loop(engine: DraftedEngine, collected: Collected) -> BatchLoop:
    """A row costs a hundredth of a step."""
    loop = BatchLoop(engine, Host(collected.publish))
    speculation = loop._scheduler.speculation
    assert speculation is not None and speculation.drafting is not None
    speculation.cost.group, speculation.cost.row = 1.0, 0.01
    speculation.drafting.cost.group, speculation.drafting.cost.row = 0.05, 0.001
    return loop


def new_engine(hit_rate: float) -> DraftedEngine:
    return DraftedEngine(ScriptedDraft(hit_rate), slots=4, context_tokens=1000, max_batched_tokens=256)


def test_a_text_takes_fewer_steps_than_tokens_and_is_the_same(collected: Collected) -> None:
    engine = new_engine(0.9)
    loop = drafted_loop(engine, collected)
    loop.submit(make_sequence("whole", prompt(LETTERS, max_tokens=900)))
    loop.submit(make_sequence("cut", prompt(LETTERS[::-1], max_tokens=77)))
    loop.submit(make_sequence("stopped", prompt(LETTERS[:90] + "and stop here", stop=("stop",), max_tokens=900)))
    loop.start()
    collected.wait_for("whole", "cut", "stopped")
    loop.stop()
    assert collected.texts["whole"] == LETTERS and collected.texts["cut"] == LETTERS[::-1][:77]
    assert collected.texts["stopped"] == LETTERS[:90] + "and "
    assert collected.outcomes["cut"][0].finish_reason is FinishReason.LENGTH
    assert len(engine.steps) < len(LETTERS) / 2


def test_a_draft_model_that_fails_is_left_out_and_no_request_fails(collected: Collected) -> None:
    engine = new_engine(0.9)
    engine.draft.fails = True
    loop = drafted_loop(engine, collected)
    loop.start()
    loop.submit(make_sequence("s", prompt(LETTERS, max_tokens=900)))
    collected.wait_for("s")
    engine.draft.fails = False
    loop.submit(make_sequence("t", prompt(LETTERS, max_tokens=900)))
    collected.wait_for("t")
    loop.stop()
    assert collected.texts == {"s": LETTERS, "t": LETTERS} and engine.resets == 0 and engine.draft.made == 0


def test_over_a_thousand_jobs_no_text_changes_and_nothing_is_left_behind(collected: Collected) -> None:
    chance = random.Random(5)
    engine = new_engine(0.8)
    loop = drafted_loop(engine, collected)
    loop.start()
    texts: dict[str, str] = {}
    for number in range(1000):
        text = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(1, 40)))
        sequence = make_sequence(f"s{number}", prompt(text, length=chance.choice([3, 40, 200]), max_tokens=900))
        texts[sequence.id] = text
        loop.submit(sequence)
        if chance.random() < 0.1:
            sequence.job.cancel_requested = True
            loop.wake()
        if number % 20 == 19:
            collected.wait_for(*texts)
    loop.stop()
    for name, text in texts.items():
        assert text.startswith(collected.texts[name]), name
        assert len(collected.outcomes[name]) == 1
    whole = sum(collected.texts[name] == text for name, text in texts.items())
    assert whole > 800 and engine.draft.made > 1000
    cells = loop._scheduler.prefix_cache.cells
    assert sum(map(len, engine.cells.values())) == cells
    assert engine.draft.held.keys() <= engine.cells.keys(), "the draft model keeps slots that are empty"
