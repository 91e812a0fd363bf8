"""Tokens and their bytes."""

import os
import re
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest, PromptTooLong
from workers.engines.llama.special_split import SpecialSplit, pieces
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.vocabulary import INLINE_CHARACTERS, TOKENIZER_LIMITS


def test_the_pieces_of_a_texts_tokens_are_the_text(vocabulary: LlamaVocabulary) -> None:
    text = "Grüße, 世界! \U0001f600\n\ttabs"
    assert b"".join(vocabulary.piece(token) for token in vocabulary.tokenize(text)) == text.encode()


def test_control_tokens_have_a_name_but_no_bytes(vocabulary: LlamaVocabulary) -> None:
    assert vocabulary.eos == 2 and 2 in vocabulary.end_tokens
    assert vocabulary.piece(2) == b"" and vocabulary.text(2) == "<|im_end|>"


def test_no_token_stands_for_more_bytes_than_it_is_said(vocabulary: LlamaVocabulary) -> None:
    pieces = [vocabulary._rendered(token, special=True) for token in range(vocabulary.size)]
    assert max(map(len, pieces)) <= vocabulary.token_bytes < 200


@pytest.fixture(scope="module")
def split(vocabulary: LlamaVocabulary) -> SpecialSplit:
    return vocabulary.special_split()


def test_a_begin_token_written_by_a_template_is_not_doubled(vocabulary: LlamaVocabulary) -> None:
    assert vocabulary.tokenize("<|im_start|><|im_start|>user")[:2] != [vocabulary.bos, vocabulary.bos]


PIECES = st.sampled_from(
    [
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<repo_name>",
        "<|im_",
        "|>",
        " ",
        "\n\n",
        "user\n",
        "Grüße ",
        "世",
        "\ud800",
    ]
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(PIECES | st.text(max_size=5), max_size=40), add_special=st.booleans())
def test_a_long_text_has_the_tokens_that_llama_cpp_gives_it(
    vocabulary: LlamaVocabulary, parts: list[str], add_special: bool
) -> None:
    text = "".join(parts) + " word" * (INLINE_CHARACTERS // 5) + "".join(parts)
    assert len(text) > INLINE_CHARACTERS - 5
    assert vocabulary.tokenize(text, add_special=add_special) == vocabulary.tokenize_here(text, add_special=add_special)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PIECES | st.text(max_size=5), max_size=40), add_special=st.booleans(), specials=st.integers(1, 4))
def test_a_text_in_pieces_has_the_tokens_of_the_whole(
    vocabulary: LlamaVocabulary, split: SpecialSplit, parts: list[str], add_special: bool, specials: int
) -> None:
    text = "".join(parts)
    raw = text.encode("utf-8", "replace")
    cut = pieces(raw, split.starts(raw), specials=specials)
    assert vocabulary.tokenize_pieces(cut, add_special=add_special) == vocabulary.tokenize_here(
        text, add_special=add_special
    )


def test_many_special_tokens_take_no_longer_than_as_many_words(vocabulary: LlamaVocabulary) -> None:
    """In one call llama.cpp takes six minutes for them."""
    tokens = vocabulary.tokens_of("<|im_start|>" * 320_000, "text")
    assert (len(tokens), set(tokens)) == (320_000 - 1, {1})


def test_a_text_of_too_many_bytes_or_special_tokens_for_the_context_is_rejected_before_it_is_tokenized(
    vocabulary: LlamaVocabulary,
) -> None:
    began = time.process_time()
    for text, at_least in (("a" * 4_000_000, 20_000), ("<|im_start|>a" * 9000, 9000)):
        with pytest.raises(PromptTooLong, match=r"length is 8192 tokens.*at least \d+ in prompt") as caught:
            vocabulary.tokens_of(text, "prompt", most=8192)
        assert list(caught.value.errors) == ["prompt"]
        assert at_least <= int(re.findall(r"at least (\d+)", caught.value.detail)[0])
    assert time.process_time() - began < 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_the_thread_that_tokenizes_long_texts_is_nicer_than_the_models(vocabulary: LlamaVocabulary) -> None:
    before = {child.pid for child in psutil.Process().children()}
    nice = LlamaVocabulary(vocabulary._model, vocabulary._path)
    nice.model_nice = 7
    try:
        nice.tokenize("a word " * INLINE_CHARACTERS)
        (child,) = [child for child in psutil.Process().children() if child.pid not in before]
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert min(19, own + 12) in {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in child.threads()}
    finally:
        nice.close()


def test_a_text_that_takes_too_long_is_rejected_and_the_next_is_tokenized(
    vocabulary: LlamaVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = LlamaVocabulary(vocabulary._model, vocabulary._path)
    monkeypatch.setattr("workers.engines.shared.vocabulary.TOKENIZER_LIMITS", replace(TOKENIZER_LIMITS, cpu_seconds=1))
    try:
        with pytest.raises(InvalidRequest, match=r"text: it cannot be tokenized .*: send a shorter one") as caught:
            hurried.tokens_of("a" * 4_000_000, "text")
        assert list(caught.value.errors) == ["text"]
        long = "a word " * INLINE_CHARACTERS
        assert hurried.tokens_of(long, "text") == vocabulary.tokenize_here(long, add_special=True)
    finally:
        hurried.close()
