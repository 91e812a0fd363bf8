"""Writes files of the formats before GGUF, after the loaders of llama.cpp of that time, and shares nothing with ours.

Weights are made as the integers and scales of their type; the floats that they mean are computed from those.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.workers.models.ggml.tiny_llama import (
    HEADS,
    LAYERS,
    SPECIAL,
    VOCABULARY,
    WIDTH,
    Floats,
    TinyLlama,
    shapes,
    token_texts,
)

F32, F16, Q4_0, Q4_1, Q4_2, Q4_3, Q5_0, Q5_1, Q8_0 = range(9)
Q2_K, Q3_K, Q4_K, Q5_K, Q6_K = range(10, 15)


class Kind(NamedTuple):
    """One of the old formats. quantization: 1: pairs, long scales; 2: halves, long scales; 3: halves, short scales."""

    magic: int
    version: int | None
    quantization: int

    @property
    def pads(self) -> bool:
        return self.magic == 0x67676A74

    @property
    def has_scores(self) -> bool:
        return self.version is not None


GGML = Kind(0x67676D6C, None, 1)
GGMF = Kind(0x67676D66, 1, 1)
GGJT_1, GGJT_2, GGJT_3 = (Kind(0x67676A74, version, version) for version in (1, 2, 3))


class Stored(NamedTuple):
    """A tensor: its data in the file, and the floats that it means."""

    data: bytes
    floats: Floats


def write_old_file(
    path: Path,
    kind: Kind = GGJT_3,
    weights: int = F16,
    *,
    key_value_heads: int = HEADS,
    texts: list[bytes] | None = None,
    numbers: dict[str, int] | None = None,
    only: Callable[[str], bool] = lambda name: True,
) -> TinyLlama:
    """Write a tiny LLaMA whose matrices are of type `weights`, and return it.

    numbers: of the header, in place of the right ones. only: the tensors that are written.
    """
    rng = np.random.default_rng(weights)
    texts = token_texts() if texts is None else texts
    floats: dict[str, Floats] = {}
    header = {
        "n_vocab": len(texts),
        "n_embd": WIDTH,
        "n_mult": 256,
        "n_head": HEADS,
        "n_layer": LAYERS,
        "n_rot": WIDTH // HEADS,
        "ftype": weights,
    }
    with path.open("wb") as file:
        file.write(struct.pack("<I", kind.magic))
        file.write(b"" if kind.version is None else struct.pack("<I", kind.version))
        file.write(struct.pack("<7I", *(header | (numbers or {})).values()))
        for number, text in enumerate(texts):
            file.write(struct.pack("<I", len(text)) + text)
            file.write(struct.pack("<f", min(0, SPECIAL + 256 - number)) if kind.has_scores else b"")
        for name, shape in shapes(key_value_heads, len(texts)).items():
            if only(name):
                used = weights if len(shape) == 2 else F32
                stored = make_tensor(rng, used, shape, kind.quantization)
                floats[name] = stored.floats
                file.write(struct.pack("<3I", len(shape), len(name), used))
                file.write(struct.pack(f"<{len(shape)}I", *reversed(shape)) + name.encode())
                file.write(bytes(-file.tell() % 32) if kind.pads else b"")
                file.write(stored.data)
    return TinyLlama(floats, key_value_heads)


def make_tensor(rng: np.random.Generator, kind: int, shape: tuple[int, ...], quantization: int) -> Stored:
    if len(shape) == 1:
        values = (1 + rng.normal(0, 0.1, shape)).astype("<f4")
        return Stored(values.tobytes(), values)
    if kind in (F32, F16):
        values = rng.normal(0, 0.05, shape).astype("<f4" if kind == F32 else "<f2")
        return Stored(values.tobytes(), values.astype(np.float32))
    blocks = int(np.prod(shape)) // (256 if kind >= Q2_K else 32)
    make = _k_blocks if kind >= Q2_K else _blocks
    stored = make(rng, kind, blocks, quantization)
    return Stored(stored.data, stored.floats.reshape(shape))


def _blocks(rng: np.random.Generator, kind: int, blocks: int, quantization: int) -> Stored:
    """Return blocks of 32. The scales are numbers that 16 bits hold, so that no layout loses anything."""
    bits = {Q4_0: 4, Q4_1: 4, Q4_2: 4, Q4_3: 4, Q5_0: 5, Q5_1: 5, Q8_0: 8}[kind]
    integers = rng.integers(0, 2**bits, (blocks, 32))
    scale = (rng.uniform(0.05, 0.15, (blocks, 1)) / 2 ** (bits - 1)).astype("<f2").astype("<f4")
    has_minimum = kind in (Q4_1, Q4_3, Q5_1)
    least = (-scale * 2 ** (bits - 1) * rng.uniform(0.9, 1.1, scale.shape)).astype("<f2").astype("<f4")
    floats = integers * scale + least if has_minimum else (integers - 2 ** (bits - 1)) * scale
    short = quantization == 3 or bits == 5
    parts = [_raw(each.astype("<f2" if short else "<f4")) for each in ((scale, least) if has_minimum else (scale,))]
    if bits == 5:
        parts.append(_raw(((integers >> 4) << np.arange(32)).sum(axis=1, keepdims=True).astype("<u4")))
    if bits == 8:
        parts.append(_raw((integers - 128).astype("<i1")))
    else:
        low = integers & 15
        first, second = (low[:, 0::2], low[:, 1::2]) if quantization == 1 else (low[:, :16], low[:, 16:])
        parts.append((first | second << 4).astype(np.uint8))
    return Stored(np.concatenate(parts, axis=1).tobytes(), floats.astype(np.float32))


_K_BLOCKS = {Q2_K: (84, {80: 4.0, 82: 6.0}), Q3_K: (110, {108: 1.0}), Q4_K: (144, {0: 1.0, 2: 7.5})}
_K_BLOCKS |= {Q5_K: (176, {0: 0.5, 2: 7.5}), Q6_K: (210, {208: 0.02})}
"""Bytes of a block, and the places of its scales with their size in 1/1000."""


def _k_blocks(rng: np.random.Generator, kind: int, blocks: int, quantization: int) -> Stored:
    """Return blocks of 256 with random integers. What they mean, the `gguf` package knows."""
    from gguf import GGMLQuantizationType, dequantize

    assert quantization == 3
    size, scales = _K_BLOCKS[kind]
    data = rng.integers(0, 256, (blocks, size)).astype(np.uint8)
    for place, thousandths in scales.items():
        values = rng.uniform(0.05, 0.1, (blocks, 1)) * thousandths / 1000
        data[:, place : place + 2] = _raw(values.astype("<f2"))
    return Stored(data.tobytes(), dequantize(data, GGMLQuantizationType(kind)).astype(np.float32))


def _raw(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


assert len(token_texts()) == VOCABULARY
