"""How many tokens of whose prompts a step computes."""

from collections.abc import Iterable

from tests.workers.batching.loop_host import make_sequence
from tests.workers.batching.scripted_engine import prompt
from workers.batching.prefill_turns import (
    CHUNK_TOKENS,
    RESTS_AFTER_SECONDS,
    SHARED_FOR_SECONDS,
    SMALL_CHUNK_TOKENS,
    SMALL_CHUNKS_BEFORE,
    STEP_SECONDS,
    PrefillTurns,
)
from workers.batching.sequence import BatchSequence

MOST = 512


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Steps:
    """Steps of sequences, each of which takes as long as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = PrefillTurns(MOST, self.clock)
        self.running: list[BatchSequence] = []

    def add(self, tenant: str, length: int) -> BatchSequence:
        sequence = make_sequence(f"{tenant} {len(self.running)}", prompt("text", length=length), tenant=tenant)
        sequence.slot = len(self.running)
        self.running.append(sequence)
        return sequence

    def decoding(self, tenant: str) -> BatchSequence:
        sequence = self.add(tenant, 1)
        sequence.position = 1
        sequence.generated.append(7)
        return sequence

    def come_and_go(self, tenant: str) -> None:
        """Make a step of a client that may come back."""
        sequence = self.decoding(tenant)
        self.step()
        self.running.remove(sequence)

    def next(self) -> list[BatchSequence]:
        return self.turns.next_prompts(self.running)

    def step(self, seconds: float = 0.01) -> int:
        """Make a step of whose turn it is. Returns how many tokens of prompts it computed."""
        planned = [(s, s.next_chunk(1)) for s in self.running if not s.is_prefilling]
        prefilling, tokens = self.next(), 0
        budget = self.turns.budget(len(planned), prefilling[0].position if prefilling else 0)
        for sequence in prefilling:
            if tokens < budget:
                planned.append((sequence, sequence.next_chunk(budget - tokens)))
                tokens += len(planned[-1][1].tokens)
        self.clock.now += seconds
        self.turns.learn(planned, seconds)
        for sequence, chunk in planned:
            sequence.position += len(chunk.tokens)
            if chunk.samples:
                sequence.generated.append(7)
        return tokens


def tenants(sequences: Iterable[BatchSequence]) -> list[str]:
    return [sequence.job.tenant for sequence in sequences]


def test_a_client_alone_gets_steps_of_full_size() -> None:
    steps = Steps()
    steps.add("a", 2000)
    steps.decoding("a")
    assert [steps.step(seconds=3) for _ in range(2)] == [MOST - 1, MOST - 1]  # one decodes


def test_beside_another_client_a_step_has_few_tokens_until_its_speed_is_known() -> None:
    steps = Steps()
    steps.add("a", 2000)
    steps.add("b", 2000)
    assert steps.step() == SMALL_CHUNK_TOKENS


def test_shared_steps_have_as_many_tokens_as_fit_into_their_time() -> None:
    steps = Steps()
    steps.add("a", 5000)
    steps.step(seconds=MOST * STEP_SECONDS / 200)  # 200 tokens would fit
    steps.add("b", 5000)
    assert steps.step(seconds=192 * STEP_SECONDS / 100) == 192
    assert steps.step() == 128  # of 133: this step took twice as long as the first one


def test_beside_sequences_that_decode_a_chunk_is_one_token_longer() -> None:
    steps = Steps()
    steps.decoding("a")
    steps.add("b", 2000)
    assert steps.step() == SMALL_CHUNK_TOKENS + 1


def test_chunks_of_a_slow_model_are_small_near_the_beginning_of_a_prompt_alone() -> None:
    steps = Steps()
    steps.come_and_go("b")
    steps.add("a", SMALL_CHUNKS_BEFORE + 2 * CHUNK_TOKENS)
    chunks = [steps.step(seconds=1) for _ in range(2 + SMALL_CHUNKS_BEFORE // SMALL_CHUNK_TOKENS)]
    assert chunks[-3:] == [SMALL_CHUNK_TOKENS, CHUNK_TOKENS, CHUNK_TOKENS]


def test_steps_stay_short_while_another_client_may_come_back() -> None:
    steps = Steps()
    steps.come_and_go("b")
    steps.add("a", 2000)
    assert steps.step() == SMALL_CHUNK_TOKENS
    steps.clock.now += SHARED_FOR_SECONDS + 1
    assert steps.step() == MOST


def test_after_a_step_with_its_prompt_a_client_rests_as_long_while_others_have_work() -> None:
    steps = Steps()
    long = steps.add("a", 2000)
    steps.decoding("b")
    steps.step(seconds=0.3)
    assert [steps.step(seconds=0.1) for _ in range(3)] == [0, 0, 0]
    assert steps.next() == [long]


def test_after_a_short_step_a_client_does_not_rest() -> None:
    steps = Steps()
    steps.add("a", 2000)
    steps.decoding("b")
    assert [steps.step(seconds=0.9 * RESTS_AFTER_SECONDS) > 0 for _ in range(3)] == [True, True, True]


def test_a_client_does_not_rest_when_the_others_have_gone() -> None:
    steps = Steps()
    long, other = steps.add("a", 2000), steps.decoding("b")
    steps.step(seconds=0.3)
    steps.running.remove(other)
    assert steps.next() == [long]


def test_who_comes_during_a_step_goes_before_the_rest_of_the_prompt() -> None:
    steps = Steps()
    steps.come_and_go("b")
    steps.add("a", 2000)
    steps.step(seconds=0.1)
    short = steps.add("b", 4)
    assert steps.next() == [short]
    assert [steps.step(seconds=0.02), steps.step(seconds=0.02)] == [4, 0]


def test_clients_with_long_prompts_take_turns() -> None:
    steps = Steps()
    for tenant in "abc":
        steps.add(tenant, 2000)
    steps.step(seconds=0.1)  # one step computes the first client's
    turns = []
    for _ in range(6):
        turns += tenants(steps.next())[:1]
        steps.step(seconds=0.1)
    assert sorted(turns[:3]) == sorted(turns[3:]) == ["a", "b", "c"]


def test_a_prompt_is_never_held_up_when_nothing_else_steps() -> None:
    steps = Steps()
    for tenant in "ab":
        steps.add(tenant, 300)
    while any(sequence.is_prefilling for sequence in steps.running):
        assert steps.step(seconds=0.1) > 0


def test_the_prompts_of_one_client_go_by_arrival() -> None:
    steps = Steps()
    first, second = steps.add("a", 100), steps.add("a", 100)
    first.submitted_at, second.submitted_at = 2.0, 1.0
    assert steps.next() == [second, first]
