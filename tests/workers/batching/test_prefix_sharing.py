"""Prefixes that are computed once: by which sequence, when, and what happens when that sequence ends early.

The scripted engine fails when it samples a slot that holds another sequence's tokens.
"""

import random

import pytest

from app.jobs.job import Status
from app.jobs.sampling import SamplingParams
from tests.workers.batching.loop_host import Collected, make_sequence
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.loop import BatchLoop
from workers.engines.base import Prompt

SYSTEM = list(range(100, 140))  # 40 tokens


def prompt_of(*tokens: int, answer: str = "ok", **sampling: object) -> Prompt:
    return Prompt(tokens=[*SYSTEM, *tokens], sampling=SamplingParams(**sampling), state=answer.encode())  # type: ignore[arg-type]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(slots=4, context_tokens=1000, max_batched_tokens=16, shares_prefixes=True)


def computed(engine: ScriptedEngine) -> int:
    return sum(tokens for step in engine.steps for _, tokens in step)


def test_concurrent_sequences_wait_for_the_first_and_compute_only_their_own_tokens(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    sequences = [make_sequence(f"s{number}", prompt_of(number)) for number in range(4)]
    for sequence in sequences:
        loop.submit(sequence)
    loop.start()
    collected.wait_for(*(s.id for s in sequences))
    assert [s.usage.cached_tokens for s in sequences] == [0, 40, 40, 40]
    assert set(collected.texts.values()) == {"ok"}
    assert computed(engine) == 41 + 3 * 1 + 4 * 2, "one prefix, four last tokens, two decodes each"


def test_a_running_sequence_shares_its_prefix_within_its_scope_and_with_nobody_else(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    scopes = ["me", "me", "you", "you"]
    sequences = [make_sequence(f"s{at}", prompt_of(at), scope=scope) for at, scope in enumerate(scopes)]
    for sequence in sequences:
        loop.submit(sequence)
    loop.start()
    collected.wait_for(*(s.id for s in sequences))
    assert [s.usage.cached_tokens for s in sequences] == [0, 40, 0, 40]
    assert set(collected.texts.values()) == {"ok"}
    assert computed(engine) == 2 * (41 + 1) + 4 * 2, "each scope computes the prefix once, for itself"


def test_what_a_sequence_leaves_does_the_work_of_its_own_scope_alone(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    steps = []
    for name, scope in [("secret", "me"), ("guess", "you"), ("again", "me")]:
        before = computed(engine)
        sequence = make_sequence(name, prompt_of(7), scope=scope)
        loop.submit(sequence)
        collected.wait_for(name)
        steps.append((sequence.usage.cached_tokens, computed(engine) - before))
    assert steps == [(0, 43), (0, 43), (40, 3)], "neither the count nor the work shows what a stranger has sent"


def test_a_prefix_that_an_ended_sequence_left_is_used_in_place(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    first = make_sequence("first", prompt_of(1, answer="yes"))
    loop.submit(first)
    collected.wait_for("first")
    turn = make_sequence("second", Prompt(tokens=[*SYSTEM, 1, *b"yes", 7], sampling=SamplingParams(), state=b"ok"))
    loop.submit(turn)
    collected.wait_for("second")
    assert turn.usage.cached_tokens == 44, "the prompt and the answer without its last token, which was never decoded"
    assert (turn.slot, engine.copied) == (first.slot, [])


def test_a_long_conversation_is_not_cut_for_a_prompt_with_the_same_beginning(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    loop.submit(make_sequence("long", prompt_of(*range(200))))
    collected.wait_for("long")
    other = make_sequence("other", prompt_of(999))
    loop.submit(other)
    collected.wait_for("other")
    assert (other.usage.cached_tokens, engine.copied) == (40, [(0, 1, 40)])
    back = make_sequence("back", prompt_of(*range(201)))
    loop.submit(back)
    collected.wait_for("back")
    assert back.usage.cached_tokens == 240


def test_when_the_first_sequence_ends_too_early_the_next_computes_the_prefix(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    sequences = [make_sequence(f"s{number}", prompt_of(number)) for number in range(3)]
    for sequence in sequences:
        loop.submit(sequence)

    def cancel_in_the_middle(slot: int, prompt: Prompt) -> None:
        start(slot, prompt)
        if len(engine.cells) == 3:
            sequences[0].job.cancel_requested = True

    start, engine.start = engine.start, cancel_in_the_middle  # type: ignore[method-assign]
    loop.start()
    collected.wait_for("s0", "s1", "s2")
    assert collected.outcomes["s0"][0].status is Status.CANCELED
    assert (collected.texts["s1"], collected.texts["s2"]) == ("ok", "ok")
    assert computed(engine) < 3 * 41


def test_a_failed_step_leaves_nothing_that_could_be_shared(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    loop.submit(make_sequence("before", prompt_of(1)))
    collected.wait_for("before")
    engine.fail_next_step = RuntimeError("a defect")
    loop.submit(make_sequence("fails", prompt_of(2)))
    collected.wait_for("fails")
    after = make_sequence("after", prompt_of(3))
    loop.submit(after)
    collected.wait_for("after")
    assert (after.usage.cached_tokens, collected.texts["after"]) == (0, "ok")


def test_a_sequence_on_trial_does_not_wait_for_held_sequences(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.submit(make_sequence("held", prompt_of(1)))
    loop.submit(make_sequence("tried", prompt_of(2)))
    loop.pause_others("tried", tokens=None)
    loop.start()
    collected.wait_for("tried")
    assert "held" not in collected.outcomes
    loop.release_others()
    collected.wait_for("held")


def test_a_request_for_the_logits_of_its_prompt_computes_the_whole_prompt(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    loop.start()
    sequences = [make_sequence("plain", prompt_of(1)), make_sequence("explained", prompt_of(1, echo=True, logprobs=1))]
    for sequence in sequences:
        loop.submit(sequence)
        collected.wait_for(sequence.id)
    assert sequences[1].usage.cached_tokens == 0


def test_random_sequences_never_sample_with_the_tokens_of_another(
    loop: BatchLoop, engine: ScriptedEngine, collected: Collected
) -> None:
    chance = random.Random(7)
    loop.start()
    ids, jobs, prompt_tokens = [], [], 0
    for number in range(300):
        tokens = [chance.randrange(2) for _ in range(chance.choice([0, 1, 5, 40, 90]))]
        prompt = prompt_of(*tokens, answer="x" * chance.randrange(1, 30), max_tokens=40)
        sequence = make_sequence(f"s{number}", prompt, scope=chance.choice(["me", "you"]))
        loop.submit(sequence)
        ids.append(sequence.id)
        jobs.append(sequence.job)
        prompt_tokens += len(sequence.prompt.tokens)
        if chance.random() < 0.2:
            chance.choice(jobs).cancel_requested = True
        if chance.random() < 0.1:
            collected.wait_for(*ids)
    collected.wait_for(*ids)
    statuses = {collected.outcomes[i][0].status for i in ids}
    assert statuses <= {Status.SUCCEEDED, Status.CANCELED}
    assert all(len(collected.outcomes[i]) == 1 for i in ids)
    loop.stop()
    held = sum(len(cells) for slot, cells in engine.cells.items())
    assert held == loop._scheduler.prefix_cache.cells, "cells have leaked"
    assert computed(engine) < prompt_tokens, "fewer tokens than the prompts have, all decoding included"
