"""A sequence that continues the published output of an earlier attempt: no token twice, no character twice."""

import pytest

from app.jobs.job import FinishReason, Status
from tests.workers.batching.loop_host import make_sequence
from tests.workers.batching.scripted_engine import prompt
from workers.batching.sequence import BatchSequence, ResumeState
from workers.engines.base import Prompt, Sampled


def earlier(text: str, *, published: str | None = None) -> ResumeState:
    pieces = [bytes([byte]) for byte in text.encode()]
    return ResumeState(
        tokens=[piece[0] for piece in pieces], pieces=pieces, text=text if published is None else published
    )


def in_slot(made: Prompt, before: ResumeState | None = None) -> BatchSequence:
    sequence = make_sequence("s", made, earlier=before)
    sequence.slot = 0
    return sequence


def sample(sequence: BatchSequence, text: str) -> str:
    """Sample the bytes of `text` one by one; return the published text."""
    deltas = [sequence.advance(Sampled(token=byte, piece=bytes([byte])), 1000) for byte in text.encode()]
    return "".join(delta.text for delta in deltas)


def test_earlier_tokens_are_prefilled_like_the_prompts_and_then_one_is_sampled() -> None:
    sequence = in_slot(prompt("", length=3), earlier("ab"))
    first = sequence.next_chunk(4)
    assert (list(first.tokens), first.position, first.samples) == ([1, 1, 1, 97], 0, False)
    sequence.position += 4
    second = sequence.next_chunk(4)
    assert (list(second.tokens), second.position, second.samples) == ([98], 4, True)
    assert list(second.generated) == [97, 98]
    sequence.position += 1
    assert not sequence.is_prefilling


def test_each_token_is_counted_once() -> None:
    sequence = in_slot(prompt("", length=3), earlier("ab"))
    assert sample(sequence, "cd") == "cd"
    assert (sequence.usage.prompt_tokens, sequence.usage.completion_tokens, sequence.new_tokens) == (3, 4, 2)


def test_earlier_tokens_count_against_max_tokens() -> None:
    sequence = in_slot(prompt("", max_tokens=4), earlier("abc"))
    sequence.advance(Sampled(token=100, piece=b"d"), 1000)
    assert sequence.outcome is not None and sequence.outcome.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(("before", "published", "after", "text"), [("ab", "a", "c", "bc"), ("xb", "x", "ST", "")])
def test_a_possible_beginning_of_a_stop_string_is_still_held_back(
    before: str, published: str, after: str, text: str
) -> None:
    sequence = in_slot(prompt("", stop=("bST",)), earlier(before, published=published))
    assert sample(sequence, after) == text


def test_half_a_character_waits_for_its_other_half() -> None:
    half = ResumeState(tokens=[1], pieces=["é".encode()[:1]], text="")
    sequence = in_slot(prompt(""), half)
    assert sequence.advance(Sampled(token=2, piece="é".encode()[1:]), 1000).text == "é"


def test_with_no_tokens_to_generate_only_the_prompt_is_output() -> None:
    made = Prompt(tokens=[1], sampling=prompt("", max_tokens=0).sampling, echo_text="prompt")
    sequence = in_slot(made)
    delta = sequence.advance(Sampled(token=2, piece=b"x"), 1000)
    assert sequence.outcome is not None and sequence.outcome.finish_reason is FinishReason.LENGTH
    assert (delta.text, delta.tokens) == ("prompt", ())


def test_an_echoed_prompt_is_not_echoed_again() -> None:
    made = Prompt(tokens=[1], sampling=prompt("").sampling, echo_text="prompt ")
    assert sample(in_slot(made, earlier("a", published="prompt a")), "b") == "b"


@pytest.mark.parametrize(
    ("before", "published", "sampling", "reason", "rest"),
    [
        ("abcd", "abcd", {"max_tokens": 4}, FinishReason.LENGTH, ""),
        ("abcS", "abc", {"max_tokens": 4, "stop": ("ST",)}, FinishReason.LENGTH, "S"),
        ("abcS", "abcS", {"max_tokens": 4, "stop": ("ST",)}, FinishReason.LENGTH, ""),
        ("abST", "ab", {"stop": ("ST",)}, FinishReason.STOP, ""),
    ],
    ids=["whole", "tail held back", "tail published with the last text", "stopped"],
)
def test_a_sequence_whose_worker_died_between_its_last_token_and_its_end_ends_at_once(
    before: str, published: str, sampling: dict[str, object], reason: FinishReason, rest: str
) -> None:
    sequence = in_slot(prompt("", **sampling), earlier(before, published=published))
    delta = sequence.interrupted()
    assert delta is not None and sequence.outcome is not None
    assert (sequence.outcome.status, sequence.outcome.finish_reason, delta.text) == (Status.SUCCEEDED, reason, rest)


def test_a_stop_token_ends_the_output_and_is_not_part_of_it() -> None:
    sequence = in_slot(prompt("", stop_token_ids=(ord("c"),)))
    assert sample(sequence, "abc") == "ab"
    assert sequence.outcome is not None and sequence.outcome.finish_reason is FinishReason.STOP
    assert sequence.usage.completion_tokens == 2


def test_a_stop_token_before_min_length_is_a_token_like_others() -> None:
    sequence = in_slot(prompt("", stop_token_ids=(ord("c"),), min_length=2))
    assert sample(sequence, "cbc") == "cb"
    assert sequence.outcome is not None and sequence.outcome.finish_reason is FinishReason.STOP
