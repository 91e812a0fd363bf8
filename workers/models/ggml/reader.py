"""Reads a file of an old format: its numbers, its vocabulary, and where its tensors lie. The weights are not read.

Everything in a file may be wrong: it was cut short, damaged, or is of another kind of model (many programs used the
magic of GGML). So every number is checked before it is used.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from app.errors import ModelUnavailable
from workers.models.ggml.blocks import Encoding, TensorType, encoding
from workers.models.ggml.formats import FETCH_ANOTHER, OldFormat, format_of

ALIGNMENT = 32  # bytes
_MOST_DIMENSIONS = 2
_LONGEST_NAME = 256  # bytes
_PARTS = (2, 4, 8)  # of 13B, 30B and 65B, before GGJT


@dataclass(frozen=True, slots=True)
class Token:
    """score: None in a format without scores."""

    text: bytes
    score: float | None


@dataclass(frozen=True, slots=True)
class OldTensor:
    """shape: the length of a row first, as in the file. start: where its data begins, bytes."""

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int
    encoding: Encoding

    @property
    def blocks(self) -> int:
        return math.prod(self.shape) // self.encoding.weights

    @property
    def new_bytes(self) -> int:
        return self.blocks * self.encoding.new_bytes


@dataclass(frozen=True)
class OldModel:
    """A LLaMA model of an old format. tensors: by name, in the order of the file."""

    path: Path
    format: OldFormat
    width: int
    heads: int
    layers: int
    file_type: int
    tokens: list[Token]
    tensors: dict[str, OldTensor]

    @cached_property
    def head_width(self) -> int:
        return self.width // self.heads

    @cached_property
    def key_value_heads(self) -> int:
        return self.tensors["layers.0.attention.wk.weight"].shape[1] // self.head_width

    @cached_property
    def hidden(self) -> int:
        """The width of the feed-forward layers."""
        return self.tensors["layers.0.feed_forward.w1.weight"].shape[1]


def read_model(path: Path) -> OldModel:
    """Read everything but the weights.

    Raises:
        ModelUnavailable: the file cannot be read, or does not hold a whole LLaMA model whose weights GGUF can hold.
    """
    try:
        with path.open("rb") as file:
            format_ = format_of(file)
            assert isinstance(format_, OldFormat)
            return _Reader(path, file, format_).model()
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, format_: OldFormat) -> None:
        self._path = path
        self._file = file
        self._format = format_
        self._size = path.stat().st_size

    def model(self) -> OldModel:
        n_vocab, width, _, heads, layers, rotated, file_type = self._numbers(7)
        if not heads or width % heads or rotated != width // heads or not layers:
            raise self._no_llama("its numbers do not fit together")
        tokens = [self._token() for _ in range(n_vocab)]
        tensors = {tensor.name: tensor for tensor in self._tensors()}
        model = OldModel(self._path, self._format, width, heads, layers, file_type, tokens, tensors)
        self._check_tensors(model)
        return model

    def _token(self) -> Token:
        (length,) = self._numbers(1)
        text = self._bytes(length)
        return Token(text, self._float() if self._format.has_scores else None)

    def _tensors(self) -> Iterator[OldTensor]:
        while self._file.tell() < self._size:
            dimensions, name_length, kind = self._numbers(3)
            if not 1 <= dimensions <= _MOST_DIMENSIONS or not 1 <= name_length <= _LONGEST_NAME:
                raise self._no_llama("what stands where a tensor begins is none")
            shape = self._numbers(dimensions)
            name = self._bytes(name_length).decode("ascii", "replace")
            stored = self._encoding(name, kind)
            if not shape[0] or shape[0] % stored.weights:
                raise self._no_llama(f"its tensor {_shown(name)} has rows of {shape[0]} weights")
            start = self._file.tell()
            start += -start % ALIGNMENT if self._format.is_aligned else 0
            tensor = OldTensor(name, kind, shape, start, stored)
            end = start + tensor.blocks * stored.old_bytes
            if end > self._size:
                raise self._cut_short()
            self._file.seek(end)
            yield tensor

    def _encoding(self, name: str, kind: int) -> Encoding:
        stored = encoding(kind, self._format.layout)
        if stored is None and kind in list(TensorType):
            raise ModelUnavailable(
                f"{self._path} is a {self._format.label} with weights of type {TensorType(kind).name}, which GGUF does "
                f"not have: {FETCH_ANOTHER}"
            )
        if stored is None:
            raise self._no_llama(f"its tensor {_shown(name)} is of the unknown type {kind}")
        return stored

    def _check_tensors(self, model: OldModel) -> None:
        """Compare names and shapes with those of a LLaMA."""
        self._reject_part(model)
        if len(model.tensors) < model.layers:  # a number of layers out of the air would take its time
            raise self._no_llama(f"it has {len(model.tensors)} tensors for {model.layers} layers")
        try:
            wanted = expected_shapes(model)
        except LookupError:
            wanted = {}
        lacking = next((name for name, shape in wanted.items() if _shape(model, name) != shape), None)
        if lacking or model.tensors.keys() != wanted.keys():
            other = lacking or next(iter(model.tensors.keys() - wanted.keys()), "layers.0")
            raise self._no_llama(f"its tensor {_shown(other)} is missing or not that of a LLaMA")
        if not model.key_value_heads or model.heads % model.key_value_heads:
            raise self._no_llama(f"{model.heads} heads do not share {model.key_value_heads} of keys and values")

    def _reject_part(self, model: OldModel) -> None:
        shape = _shape(model, "tok_embeddings.weight")
        if shape and any(shape[0] * parts == model.width for parts in _PARTS):
            raise ModelUnavailable(
                f"{self._path} is one of {model.width // shape[0]} parts of a model, a {model.format.label}, and parts "
                f"are not joined: {FETCH_ANOTHER}"
            )

    def _numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self._bytes(4 * count))

    def _float(self) -> float:
        number: float = struct.unpack("<f", self._bytes(4))[0]
        return number

    def _bytes(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise self._cut_short()
        return self._file.read(count)

    def _cut_short(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self._path} is a {self._format.label} that is cut short or damaged: download it again, or "
            f"{FETCH_ANOTHER}"
        )

    def _no_llama(self, reason: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self._path} is a {self._format.label} that is damaged or not of a LLaMA ({reason}): download it again, "
            f"or {FETCH_ANOTHER}"
        )


def expected_shapes(model: OldModel) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a LLaMA's tensors. Raises LookupError: the first layer lacks one."""
    width, vocabulary = model.width, len(model.tokens)
    key_value_width = model.key_value_heads * model.head_width
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (width, vocabulary),
        "norm.weight": (width,),
        "output.weight": (width, vocabulary),
    }
    for layer in range(model.layers):
        of_layer = {
            "attention.wq": (width, width),
            "attention.wk": (width, key_value_width),
            "attention.wv": (width, key_value_width),
            "attention.wo": (width, width),
            "attention_norm": (width,),
            "feed_forward.w1": (width, model.hidden),
            "feed_forward.w2": (model.hidden, width),
            "feed_forward.w3": (width, model.hidden),
            "ffn_norm": (width,),
        }
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return shapes


def _shape(model: OldModel, name: str) -> tuple[int, ...] | None:
    tensor = model.tensors.get(name)
    return tensor.shape if tensor else None


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
