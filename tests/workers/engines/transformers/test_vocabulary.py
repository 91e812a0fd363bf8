"""Text to tokens and back, for tokenizers of each make."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.workers.engines.transformers.models import MINILM, smollm2, tokenizer
from workers.engines.shared.vocabulary import INLINE_CHARACTERS
from workers.engines.transformers.vocabulary import TransformersVocabulary

TEXT = "Hello, wörld! 日本語 👍🏽 \n\tx = 1"


def sentencepiece_like() -> Any:
    """A tokenizer like those of Llama 2 and Mistral: byte fallback, and spaces written as ▁."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ("▁Hello", "▁", "Hello", ",", "w", "r", "l", "d", "!", "x", "=", "1", "▁x"):
        vocabulary.setdefault(piece, len(vocabulary))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def word_pieces() -> Any:
    return AutoTokenizer.from_pretrained(MINILM)


def spelled(fast_tokenizer: Any, text: str) -> str:
    vocabulary = TransformersVocabulary(fast_tokenizer, len(fast_tokenizer))
    spell = vocabulary.spell_after([])
    pieces = [spell(token) for token in vocabulary.tokenize(text, add_special=False)]
    return b"".join(pieces).decode()


@pytest.mark.parametrize("make", [tokenizer, sentencepiece_like, lambda: AutoTokenizer.from_pretrained(smollm2())])
def test_pieces_put_together_are_the_text(make: Any) -> None:
    assert spelled(make(), TEXT).lstrip(" ") == TEXT


def test_tokens_that_depend_on_their_neighbours_are_spelled_in_context() -> None:
    assert spelled(word_pieces(), "embedding words, unbelievably") == "embedding words, unbelievably"


def test_bytes_that_make_no_character_are_held_for_a_while_and_no_longer() -> None:
    vocabulary = TransformersVocabulary(tokenizer(), 259)
    vocabulary._pieces = None  # as if its tokens depended on their neighbours
    half = vocabulary.tokenizer.convert_tokens_to_ids("â")  # the first byte of three
    spell = vocabulary.spell_after([])
    pieces = [spell(half) for _ in range(20)]
    assert pieces[:10] == [b""] * 10
    assert any(pieces)
    whole = vocabulary.spell_after([])
    assert [whole(token) for token in vocabulary.tokenize("日")] == [b"", b"", "日".encode()]


def test_a_completion_keeps_the_space_before_its_first_word() -> None:
    vocabulary = TransformersVocabulary(sentencepiece_like(), 300)
    assert vocabulary.spell_after([5, 6])(vocabulary.tokenizer.convert_tokens_to_ids("▁Hello")) == b" Hello"


def test_special_tokens_have_a_name_and_no_bytes() -> None:
    vocabulary = TransformersVocabulary(tokenizer(), 259)
    assert vocabulary.spell_after([])(256) == b""
    assert vocabulary.text(256) == "<|end|>"
    assert vocabulary.text(vocabulary.tokenize("a")[0]) == "a"


def test_a_beginning_written_by_a_chat_template_is_not_doubled() -> None:
    fast_tokenizer = tokenizer()
    fast_tokenizer.backend_tokenizer.post_processor = pre_bos(fast_tokenizer)
    vocabulary = TransformersVocabulary(fast_tokenizer, 259)
    assert vocabulary.tokenize("a")[0] == 257
    assert vocabulary.tokenize("<|begin|>a").count(257) == 1
    assert vocabulary.tokenize("a", add_special=False).count(257) == 0


def pre_bos(fast_tokenizer: Any) -> Any:
    from tokenizers import processors

    return processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", fast_tokenizer.bos_token_id)]
    )


def test_infill_tokens_are_found_by_the_names_families_give_them() -> None:
    assert TransformersVocabulary(tokenizer(), 259).infill is None
    fast_tokenizer = tokenizer()
    fast_tokenizer.add_special_tokens({"extra_special_tokens": ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"]})
    vocabulary = TransformersVocabulary(fast_tokenizer, len(fast_tokenizer))
    names = [vocabulary.text(token) for token in vocabulary.infill or ()]
    assert names == ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]


def test_spaces_split_as_the_tokenizer_wants() -> None:
    assert pre_tokenizers.ByteLevel.alphabet()  # the tokenizer of these tests knows every byte
    assert spelled(tokenizer(), "  a  b ") == "  a  b "


@pytest.mark.parametrize(
    "make", [sentencepiece_like, word_pieces, lambda: AutoTokenizer.from_pretrained(smollm2())], ids=["sp", "wp", "bpe"]
)
def test_a_long_text_has_the_tokens_of_a_short_one_and_is_tokenized_in_a_process_that_can_be_ended(make: Any) -> None:
    vocabulary = TransformersVocabulary(make(), 50_000)
    text = f"{TEXT}</s><|im_start|> " * (INLINE_CHARACTERS // 20)
    assert vocabulary._processes is not None
    try:
        for add_special in (True, False):
            own = vocabulary.tokenizer(text, add_special_tokens=add_special, verbose=False).input_ids
            assert vocabulary.tokenize(text, add_special=add_special) == own
    finally:
        vocabulary.close()
