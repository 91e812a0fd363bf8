"""Text to tokens and back, through llama.cpp."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np

from workers.engines.llama.library import token_to_piece, vocab_is_eog
from workers.engines.shared.vocabulary import Vocabulary, shown_token, without_second_bos

_NONE = -1  # llama.cpp's token id for "this vocabulary has none"
_PIECE_BYTES = 512  # more than any token of a known vocabulary


class LlamaVocabulary(Vocabulary):
    """Args: model: llama.cpp's model pointer, which must outlive this object."""

    def __init__(self, model: int) -> None:
        self._pointer = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._pointer)
        self.bos = self._special(llama_cpp.llama_vocab_bos)
        self.eos = self._special(llama_cpp.llama_vocab_eos)
        self.infill = self._infill_tokens()
        ends = [token for token in range(self.size) if vocab_is_eog(self._pointer, token)]
        self.end_tokens = frozenset(ends)
        self.end_array = np.array(ends, dtype=np.int64)
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        raw = text.encode("utf-8", "replace")
        capacity = len(raw) + 16
        buffer = (ctypes.c_int32 * capacity)()
        count = llama_cpp.llama_tokenize(self._pointer, raw, len(raw), buffer, capacity, add_special, True)
        if count < 0:
            capacity = -count
            buffer = (ctypes.c_int32 * capacity)()
            count = llama_cpp.llama_tokenize(self._pointer, raw, len(raw), buffer, capacity, add_special, True)
        tokens: list[int] = buffer[: max(0, count)]
        return without_second_bos(tokens, self.bos) if add_special else tokens

    def piece(self, token: int) -> bytes:
        """The token's bytes, perhaps a part of a UTF-8 character; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._rendered(token, special=False)
        return piece

    def text(self, token: int) -> str:
        return shown_token(self._rendered(token, special=True))

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> str:
        pieces = (self._rendered(token, special=True) if special else self.piece(token) for token in tokens)
        return b"".join(pieces).decode("utf-8", "replace")

    def _rendered(self, token: int, *, special: bool) -> bytes:
        size = _PIECE_BYTES
        buffer = ctypes.create_string_buffer(size)
        count = token_to_piece(self._pointer, token, buffer, size, 0, special)
        if count < 0:
            size = -count
            buffer = ctypes.create_string_buffer(size)
            count = token_to_piece(self._pointer, token, buffer, size, 0, special)
        return buffer.raw[: max(0, count)]

    def _special(self, getter: Callable[[Any], int]) -> int | None:
        token = getter(self._pointer)
        return None if token == _NONE else token

    def _infill_tokens(self) -> tuple[int, int, int] | None:
        """Prefix, suffix, middle; None where the model was not trained to fill in."""
        prefix = self._special(llama_cpp.llama_vocab_fim_pre)
        suffix = self._special(llama_cpp.llama_vocab_fim_suf)
        middle = self._special(llama_cpp.llama_vocab_fim_mid)
        if prefix is None or suffix is None or middle is None:
            return None
        return prefix, suffix, middle
