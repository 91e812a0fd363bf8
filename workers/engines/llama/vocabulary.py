"""Text to tokens and back, through llama.cpp."""

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from app.jobs.packed_tokens import unpack
from workers.engines.llama.library import token_to_piece, vocab_is_eog
from workers.engines.llama.special_split import SpecialSplit
from workers.engines.shared.child_process import ChildProcesses
from workers.engines.shared.vocabulary import (
    INLINE_CHARACTERS,
    TOKENIZER_PROCESSES,
    TooManyTokens,
    Vocabulary,
    shown_token,
    without_second_bos,
)

_NONE = -1  # llama.cpp's token id for "this vocabulary has none"
_PROGRAM = "workers.engines.llama.tokenizer_program"
_SPECIAL = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
)
_STRIPPING = llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP | llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP  # they take white space with them
_KEEPS_ALL_BYTES = (
    llama_cpp.LLAMA_VOCAB_TYPE_BPE,
    llama_cpp.LLAMA_VOCAB_TYPE_SPM,
)  # a token's name is as long or longer
MOST_MORE_TOKENS = 128  # that one of two comparable vocabularies may have
FIRST_COMPARED_TOKEN = 5  # those before it are special ones, which files name in different ways
_PIECE_BYTES = 512  # more than any token of a known vocabulary


class LlamaVocabulary(Vocabulary):
    """Args: model: llama.cpp's model pointer, which must outlive this object. path: of its file; None: every text is
    tokenized in this process.
    """

    def __init__(self, model: int, path: Path | None = None) -> None:
        self._model = model
        self._path = path
        self._lock = threading.Lock()
        self._children: ChildProcesses | None = None
        self._pointer = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._pointer)
        self.bos = self._special(llama_cpp.llama_vocab_bos)
        self.eos = self._special(llama_cpp.llama_vocab_eos)
        self.infill = self._infill_tokens()
        ends = [token for token in range(self.size) if vocab_is_eog(self._pointer, token)]
        self.end_tokens = frozenset(ends)
        self.end_array = np.array(ends, dtype=np.int64)
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool = True, most: int | None = None) -> list[int]:
        if self._path is None or len(text) <= INLINE_CHARACTERS:
            return self.tokenize_here(text, add_special=add_special)
        if most is not None and self.token_bytes:
            fewest = -(-len(text.encode("utf-8", "replace")) // self.token_bytes)
            if fewest > most:
                raise TooManyTokens(fewest)
        reply = self._processes.call({"text": text, "add_special": add_special, "most": most})
        if "at_least" in reply:
            raise TooManyTokens(reply["at_least"])
        return unpack(reply["tokens"])

    def tokenize_here(self, text: str, *, add_special: bool) -> list[int]:
        """Return the tokens, whatever it takes."""
        tokens = self._tokens(text.encode("utf-8", "replace"), add_special=add_special)
        return without_second_bos(tokens, self.bos) if add_special else tokens

    def special_split(self) -> SpecialSplit:
        special = {token for token in range(self.size) if self._attributes(token) & _SPECIAL}
        stripping = {token for token in special if self._attributes(token) & _STRIPPING}
        return SpecialSplit(set(map(self._name, special)), set(map(self._name, stripping)))

    def tokenize_pieces(self, parts: Sequence[bytes], *, add_special: bool) -> list[int]:
        """Return the tokens of a text that `special_split.pieces` has cut."""
        tokens = [token for part in parts for token in self._tokens(part, add_special=False)]
        if not add_special:
            return tokens
        plain, whole = (self._tokens(b"a", add_special=adds) for adds in (False, True))
        begin = next(at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        return without_second_bos([*whole[:begin], *tokens, *whole[begin + len(plain) :]], self.bos)

    def _tokens(self, raw: bytes, *, add_special: bool) -> list[int]:
        capacity = len(raw) + 16
        buffer = (ctypes.c_int32 * capacity)()
        count = llama_cpp.llama_tokenize(self._pointer, raw, len(raw), buffer, capacity, add_special, True)
        if count < 0:
            capacity = -count
            buffer = (ctypes.c_int32 * capacity)()
            count = llama_cpp.llama_tokenize(self._pointer, raw, len(raw), buffer, capacity, add_special, True)
        return buffer[: max(0, count)]

    def close(self) -> None:
        with self._lock:
            if self._children is not None:
                self._children.close()

    def difference_from(self, other: "LlamaVocabulary") -> str | None:
        """Return what makes the tokens of two models incomparable. None: a token means the same to both.

        llama.cpp's rule for draft models (common/speculative.cpp): the kind of vocabulary, the tokens that are added
        around a prompt, and the texts of all tokens but the first few; one may have more tokens at its end.
        """
        if self._kind != other._kind:
            return "it is of another kind"
        if self._added_tokens() != other._added_tokens():
            return "it puts other tokens around a prompt"
        if abs(self.size - other.size) > MOST_MORE_TOKENS:
            return f"it has {self.size} tokens, and the model {other.size}"
        tokens = range(FIRST_COMPARED_TOKEN, min(self.size, other.size))
        different = next((token for token in tokens if self._name(token) != other._name(token)), None)
        if different is None:
            return None
        mine, others = (each._name(different).decode("utf-8", "replace") for each in (self, other))
        return f"its token {different} is {mine!r}, and the model's {others!r}"

    @property
    def _kind(self) -> int:
        return int(llama_cpp.llama_vocab_type(self._pointer))

    def _added_tokens(self) -> tuple[int | None, int | None]:
        adds_bos = llama_cpp.llama_vocab_get_add_bos(self._pointer)
        adds_eos = llama_cpp.llama_vocab_get_add_eos(self._pointer)
        return self.bos if adds_bos else None, self.eos if adds_eos else None

    @property
    def _processes(self) -> ChildProcesses:
        """Started with the first long text: that takes half a second."""
        with self._lock:
            if self._children is None:
                self._children = ChildProcesses(
                    _PROGRAM, self._tokenizer_limits, {"path": str(self._path)}, most=TOKENIZER_PROCESSES
                )
            return self._children

    @cached_property
    def token_bytes(self) -> int:
        """The most bytes of a text that one token can stand for; 0: some stand for any number of them."""
        if self._kind not in _KEEPS_ALL_BYTES:
            return 0
        if any(self._attributes(token) & _STRIPPING for token in range(self.size)):
            return 0
        return max(len(self._name(token)) for token in range(self.size))

    def _name(self, token: int) -> bytes:
        name: bytes = llama_cpp.llama_vocab_get_text(self._pointer, token)
        return name

    def _attributes(self, token: int) -> int:
        attributes: int = llama_cpp.llama_vocab_get_attr(self._pointer, token)
        return attributes

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
