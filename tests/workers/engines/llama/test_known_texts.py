"""A text that begins like an earlier one has the tokens that it would have had without it."""

import random
import re

import pytest

from workers.engines.llama import known_texts
from workers.engines.llama.known_texts import KnownTexts
from workers.engines.llama.vocabulary import LlamaVocabulary

WORDS = ["river ", "  two  spaces", "\n\n", "12345", "Grüße", "\U0001f600", "<|im_start|>", "<|im_end|>", "<|im", "x"]
FILLER = "It rained for a long time, and nobody minded. " * 12


def turn(rng: random.Random) -> str:
    role, words = rng.choice(["user", "assistant"]), rng.choices(WORDS, k=rng.randint(0, 12))
    return f"<|im_start|>{role}\n{''.join(words)}<|im_end|>\n"


@pytest.mark.parametrize("add_special", [True, False])
def test_conversations_that_grow_and_change_have_the_tokens_of_a_fresh_reading(
    vocabulary: LlamaVocabulary, add_special: bool
) -> None:
    rng = random.Random(1)
    conversations = [[f"<|im_start|>system\n{FILLER}{number}<|im_end|>\n"] for number in range(3)]
    for _ in range(150):
        conversation = rng.choice(conversations)
        conversation.append(turn(rng))
        if rng.random() < 0.2:
            conversation[rng.randrange(len(conversation))] += rng.choice(WORDS)
        text = "".join(conversation) + rng.choice(["", "<|im_start|>assistant\n"])
        assert vocabulary.tokenize(text, add_special=add_special) == vocabulary._tokenize(text, add_special)


class Letters:
    """Every character a token, `<s>` and `</s>` special; it puts an `<s>` before each text when it is asked to."""

    def __init__(self) -> None:
        self.names = {1: "<s>", 2: "</s>", 3: "<s>x"}
        self.read: list[str] = []

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        self.read.append(text)
        numbers = {name: token for token, name in self.names.items()}
        parts = re.findall(r"<s>x|</s>|<s>|.", text, re.DOTALL)
        return [1] * add_special + [numbers.get(part) or ord(part) + 10 for part in parts]


def test_only_what_follows_the_last_special_token_in_common_is_read_again() -> None:
    letters = Letters()
    known = KnownTexts(letters.tokenize, letters.names)
    begin = f"{FILLER}</s>hello</s>"
    known.tokenize(begin, True)
    assert known.tokenize(f"{begin} and so on</s>", True) == letters.tokenize(f"{begin} and so on</s>", True)
    assert letters.read[1] == "</s> and so on</s>"
    known.tokenize(f"{FILLER}</s>help</s>", True)
    assert letters.read[-1] == "</s>help</s>", "where two texts part, the one before counts"
    known.tokenize(f"{begin}!", False)
    assert letters.read[-1] == f"{begin}!", "with and without the special ones are two things"


def test_a_name_that_may_be_a_part_of_another_or_that_the_tokenizer_wrote_marks_nothing() -> None:
    letters = Letters()
    known = KnownTexts(letters.tokenize, letters.names)
    for text in (f"{FILLER}<s>", f"{FILLER}<s>x", f"{FILLER}<s>y"):
        assert known.tokenize(text, True) == letters.tokenize(text, True)
    assert all(text.startswith(FILLER) for text in letters.read)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_texts, "MAX_TEXTS", 3)
    letters = Letters()
    known = KnownTexts(letters.tokenize, letters.names)
    for number in range(5):
        known.tokenize(f"{number}{FILLER}</s>", False)
    assert [each.text[0] for each in known._known] == ["2", "3", "4"]
    known.tokenize(f"4{FILLER}</s>more", False)
    assert [each.text[0] for each in known._known] == ["2", "3", "4"], "a text that goes on takes its place"
    monkeypatch.setattr(known_texts, "MAX_CHARACTERS", 2 * len(FILLER))
    known.tokenize(f"5{FILLER}</s>", False)
    assert [each.text[0] for each in known._known] == ["5"]
