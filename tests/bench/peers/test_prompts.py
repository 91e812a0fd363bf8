"""The prompts of a file: all of them, none twice, the same for the same seed."""

import random
from pathlib import Path

import pytest

from tests.bench.peers.prompts import LONG_BYTES, MAX_LINE_BYTES, LinesOfFile, read_lines

LINES = ["Tell me of ships.", "Why is the sky blue?", "Wie heißt der Hafen?"]


def test_every_line_is_a_prompt_once_before_one_comes_again_with_a_number() -> None:
    prompts, rng = LinesOfFile(LINES), random.Random(1)
    first, second, third = prompts.short(3, rng), prompts.short(3, rng), prompts.short(2, rng)
    assert sorted(first) == sorted(LINES)
    assert sorted(second) == sorted(f"2. {line}" for line in LINES)
    assert len({*first, *second, *third}) == 8


def test_long_prompts_differ_from_their_beginning_on_and_have_one_size() -> None:
    prompts = LinesOfFile(LINES).long(8, random.Random(1))
    assert len({prompt.partition(" ")[0] for prompt in prompts}) == 8
    assert all(LONG_BYTES - 4 < len(prompt.encode()) <= LONG_BYTES for prompt in prompts)
    assert all(line in prompt for line in LINES for prompt in prompts)


def test_a_seed_gives_the_same_prompts_to_every_model_file() -> None:
    def prompts(seed: int) -> list[str]:
        lines, rng = LinesOfFile([f"Prompt {number}" for number in range(50)]), random.Random(seed)
        return lines.short(40, rng) + lines.long(2, rng)

    assert prompts(1) == prompts(1) != prompts(2)


def test_blank_lines_are_no_prompts_and_other_faults_of_a_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n one \n\ntwo\n\n")
    assert read_lines(file) == ["one", "two"]
    file.write_text("one\n" + "x" * (MAX_LINE_BYTES + 1))
    with pytest.raises(ValueError, match=r"line 2 of .*prompts\.txt has 1,901 bytes: at most 1,900"):
        read_lines(file)
    file.write_text(" \n")
    with pytest.raises(ValueError, match="has no line of text"):
        read_lines(file)
