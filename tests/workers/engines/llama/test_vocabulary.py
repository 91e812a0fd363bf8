"""Tokens and their bytes."""

from workers.engines.llama.vocabulary import LlamaVocabulary


def test_the_pieces_of_a_texts_tokens_are_the_text(vocabulary: LlamaVocabulary) -> None:
    text = "Grüße, 世界! \U0001f600\n\ttabs"
    assert b"".join(vocabulary.piece(token) for token in vocabulary.tokenize(text)) == text.encode()


def test_control_tokens_have_a_name_but_no_bytes(vocabulary: LlamaVocabulary) -> None:
    assert vocabulary.eos == 2 and 2 in vocabulary.end_tokens
    assert vocabulary.piece(2) == b"" and vocabulary.text(2) == "<|im_end|>"


def test_a_begin_token_written_by_a_template_is_not_doubled(vocabulary: LlamaVocabulary) -> None:
    assert vocabulary.tokenize("<|im_start|><|im_start|>user")[:2] != [vocabulary.bos, vocabulary.bos]
