"""How quantized weights were stored, and what becomes of them in GGUF.

32 weights are a block: one or two scales, then small integers. Layout 1 (until GGJT version 1) holds the integers of
weights 2i and 2i+1 in one byte, layouts 2 and 3 those of weights i and i+16. The scales of Q4_0, Q4_1 and Q8_0 are
32-bit floats in layouts 1 and 2, and 16-bit floats in layout 3, which is that of GGUF. Everything else never changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_BLOCK = 32
_NIBBLE_BYTES = _BLOCK // 2
_HIGH_BITS_BYTES = _BLOCK // 8
_FLOAT = np.dtype("<f4")
_HALF = np.dtype("<f2")


class TensorType(IntEnum):
    """`enum ggml_type` of ggml.h. 4, 5 and 9 are no longer stored in files."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q4_2 = 4
    Q4_3 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14


@dataclass(frozen=True, slots=True)
class Encoding:
    """A way to store weights, in blocks of `weights`.

    old_bytes, new_bytes: of one block, in the old file and in GGUF.
    convert: makes new blocks of old ones, (blocks, old_bytes) -> (blocks, new_bytes). None: they are equal.
    """

    weights: int
    old_bytes: int
    new_bytes: int
    convert: Callable[[Bytes], Bytes] | None = None


class ScaleOutOfRange(ValueError):
    """A scale is no number that 16 bits hold: the weights are damaged."""


def encoding(kind: int, layout: int) -> Encoding | None:
    """Return how a tensor type is stored in a layout; None: not in a way that GGUF has."""
    if kind not in _LATEST:
        return None
    known = TensorType(kind)
    return _CHANGED.get((known, layout)) or (_LATEST[known] if _is_stored(known, layout) else None)


def _is_stored(kind: TensorType, layout: int) -> bool:
    return layout == 3 or kind in (TensorType.F32, TensorType.F16) or (layout == 2 and kind in _FIVE_BITS)


def _scales(blocks: Bytes, count: int) -> Bytes:
    """Return the first `count` 32-bit floats of each block as 16-bit floats."""
    floats = np.ascontiguousarray(blocks[:, : count * _FLOAT.itemsize]).view(_FLOAT)
    with np.errstate(over="ignore"):
        halves = floats.astype(_HALF)
    if not np.isfinite(halves).all():
        raise ScaleOutOfRange
    return halves.view(np.uint8)


def _halves(pairs: Bytes) -> Bytes:
    """Return nibbles of weights (2i, 2i+1) as nibbles of weights (i, i+16)."""
    weights = np.empty((len(pairs), _BLOCK), np.uint8)
    weights[:, 0::2] = pairs & 0x0F
    weights[:, 1::2] = pairs >> 4
    halves = weights[:, _NIBBLE_BYTES:] << np.uint8(4)
    halves |= weights[:, :_NIBBLE_BYTES]
    return halves


def _with_short_scales(count: int, *, in_pairs: bool = False) -> Callable[[Bytes], Bytes]:
    def convert(blocks: Bytes) -> Bytes:
        integers = blocks[:, count * _FLOAT.itemsize :]
        return _joined(_scales(blocks, count), _halves(integers) if in_pairs else integers)

    return convert


def _reordered(blocks: Bytes) -> Bytes:
    """Of Q5_0 and Q5_1: scales and fifth bits stay, the nibbles behind them change places."""
    return _joined(blocks[:, :-_NIBBLE_BYTES], _halves(blocks[:, -_NIBBLE_BYTES:]))


def _joined(*parts: npt.NDArray[Any]) -> Bytes:
    return np.concatenate(parts, axis=1)


def _plain(weights: int, size: int) -> Encoding:
    return Encoding(weights, size, size)


_FIVE_BITS = (TensorType.Q5_0, TensorType.Q5_1)
_LATEST = {
    TensorType.F32: _plain(1, 4),
    TensorType.F16: _plain(1, 2),
    TensorType.Q4_0: _plain(_BLOCK, 2 + _NIBBLE_BYTES),
    TensorType.Q4_1: _plain(_BLOCK, 4 + _NIBBLE_BYTES),
    TensorType.Q5_0: _plain(_BLOCK, 2 + _HIGH_BITS_BYTES + _NIBBLE_BYTES),
    TensorType.Q5_1: _plain(_BLOCK, 4 + _HIGH_BITS_BYTES + _NIBBLE_BYTES),
    TensorType.Q8_0: _plain(_BLOCK, 2 + _BLOCK),
    TensorType.Q2_K: _plain(256, 84),
    TensorType.Q3_K: _plain(256, 110),
    TensorType.Q4_K: _plain(256, 144),
    TensorType.Q5_K: _plain(256, 176),
    TensorType.Q6_K: _plain(256, 210),
}
_CHANGED = {
    **{
        (kind, layout): Encoding(
            _BLOCK,
            _LATEST[kind].new_bytes + 2 * scales,
            _LATEST[kind].new_bytes,
            _with_short_scales(scales, in_pairs=layout == 1 and kind is not TensorType.Q8_0),
        )
        for layout in (1, 2)
        for kind, scales in ((TensorType.Q4_0, 1), (TensorType.Q4_1, 2), (TensorType.Q8_0, 1))
    },
    **{
        (kind, 1): Encoding(_BLOCK, _LATEST[kind].old_bytes, _LATEST[kind].new_bytes, _reordered) for kind in _FIVE_BITS
    },
}
