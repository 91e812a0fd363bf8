"""Text to tokens and back, through a tokenizer of transformers."""

import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from app.jobs.packed_tokens import unpack
from workers.engines.shared.child_process import ChildProcesses
from workers.engines.shared.vocabulary import (
    INLINE_CHARACTERS,
    TOKENIZER_PROCESSES,
    Vocabulary,
    without_second_bos,
)

_PROGRAM = "workers.engines.transformers.tokenizer_program"
_PROBE = "Hello, wörld! 123 \n\t  x = {'a': [1, 2]} 日本語"
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_SPACE = "▁"  # SentencePiece writes a space so
_INFILL = (  # prefix, suffix, middle, as the families that were trained to fill in call them
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001 - DeepSeek writes it with these
)

Decode = Callable[[Sequence[int]], str]
Spell = Callable[[int], bytes]
"""A sequence's next token to its bytes, which may be a part of a UTF-8 character; empty for special tokens."""


class TransformersVocabulary(Vocabulary):
    """Args: size: rows of the model's output. tokenizer: of transformers, fast or slow."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer = tokenizer
        self.size = size
        self._starting = threading.Lock()
        self._lock = threading.Lock()  # a fast tokenizer cannot be set up by two threads at once
        self._special = frozenset(tokenizer.all_special_ids)
        self._pieces = self._fixed_pieces()
        self.infill = self._infill_tokens()

    def tokenize(self, text: str, *, add_special: bool = True, most: int | None = None) -> list[int]:
        processes = None if len(text) <= INLINE_CHARACTERS else self._processes
        if processes is None:
            tokens = self._tokenized_here(text, add_special=add_special)
        else:
            tokens = unpack(processes.call({"text": text, "add_special": add_special})["tokens"])
        return without_second_bos(tokens, self.tokenizer.bos_token_id) if add_special else tokens

    def close(self) -> None:
        with self._starting:
            processes = self.__dict__.get("_tokenizing")
            if processes is not None:
                processes.close()

    def _tokenized_here(self, text: str, *, add_special: bool) -> list[int]:
        with self._lock:
            tokens: list[int] = self.tokenizer(text, add_special_tokens=add_special, verbose=False).input_ids
        return tokens

    @property
    def _processes(self) -> ChildProcesses | None:
        """Started with the first long text. None: the tokenizer cannot be copied to another process."""
        with self._starting:
            return self._tokenizing

    @cached_property
    def _tokenizing(self) -> ChildProcesses | None:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        setup = {"tokenizer": backend.to_str()}
        processes = ChildProcesses(_PROGRAM, self._tokenizer_limits, setup, most=TOKENIZER_PROCESSES)
        for add_special in (True, False):  # some classes of transformers do more than their backend
            theirs = unpack(processes.call({"text": _PROBE, "add_special": add_special})["tokens"])
            if theirs != self._tokenized_here(_PROBE, add_special=add_special):
                processes.close()
                return None
        return processes

    def text(self, token: int) -> str:
        if token in self._special or token >= len(self.tokenizer):
            return str(self.tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
        if self._pieces is not None:
            return self._pieces[token].decode("utf-8", "replace")
        return self._decode([token])

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> str:
        with self._lock:
            return str(
                self.tokenizer.decode(tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
            )

    def spell_after(self, prompt: Sequence[int]) -> Spell:
        """Return what spells the tokens of a sequence that follow `prompt`, in their order."""
        return self._pieces.__getitem__ if self._pieces is not None else _ContextSpeller(self._decode, prompt).spell

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.detokenize(tokens, special=False)

    def _fixed_pieces(self) -> list[bytes] | None:
        """The bytes of each token where they do not depend on its neighbours; None for other tokenizers."""
        spell = _spelling(self.tokenizer)
        if spell is None:
            return None
        added = {token: str(name) for token, name in self.tokenizer.added_tokens_decoder.items()}
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        pieces = [b"" for _ in range(max(self.size, len(names)))]
        for token, name in enumerate(names):
            if name is not None and token not in self._special:
                pieces[token] = added[token].encode() if token in added else spell(name)
        probe = self.tokenize(_PROBE, add_special=False)
        spelled = b"".join(pieces[token] for token in probe).decode("utf-8", "replace")
        return pieces if spelled.lstrip(" ") == self._decode(probe).lstrip(" ") else None

    def _infill_tokens(self) -> tuple[int, int, int] | None:
        known = self.tokenizer.get_vocab()
        for prefix, suffix, middle in _INFILL:
            if prefix in known and suffix in known and middle in known:
                return known[prefix], known[suffix], known[middle]
        return None


class _ContextSpeller:
    """What a token adds to the text before it, for tokenizers whose tokens depend on their neighbours."""

    CONTEXT_TOKENS = 6
    MAX_HELD_TOKENS = 12  # of a character that is still incomplete; more make no character

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-self.CONTEXT_TOKENS :])
        self._shown = decode(self._tokens)

    def spell(self, token: int) -> bytes:
        self._tokens.append(token)
        text = self._decode(self._tokens)
        incomplete = text.endswith("\N{REPLACEMENT CHARACTER}")  # the next token may complete it
        if incomplete and len(self._tokens) < self.CONTEXT_TOKENS + self.MAX_HELD_TOKENS:
            return b""
        new = text[len(self._shown) :]
        self._tokens = self._tokens[-self.CONTEXT_TOKENS :]
        self._shown = self._decode(self._tokens)
        return new.encode("utf-8", "replace")


def _spelling(tokenizer: Any) -> Callable[[str], bytes] | None:
    """How a token's name is its bytes, read from the decoder of a fast tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
    steps = (decoder or {}).get("decoders", [decoder or {}])
    kinds = {step.get("type") for step in steps}
    if kinds == {"ByteLevel"}:
        return _of_byte_level
    if kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"} and kinds & {"ByteFallback", "Metaspace"}:
        return _of_sentencepiece
    return None


_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


def _of_byte_level(name: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in name) if all(c in _BYTE_OF for c in name) else name.encode()


def _of_sentencepiece(name: str) -> bytes:
    if _BYTE_TOKEN.fullmatch(name):
        return bytes([int(name[3:5], 16)])
    return name.replace(_SPACE, " ").encode()
