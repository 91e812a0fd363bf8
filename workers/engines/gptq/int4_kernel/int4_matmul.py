"""4-bit weights on a CPU with AVX512_BF16: `int4_matmul.c`, loaded, tried, and called.

The library finds libgomp among what torch has loaded, so there is one pool of threads (decision 0014).
"""

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from workers.engines.gptq.int4_kernel import build

_BLOCK = 16  # outputs of a block
_STEP = 8  # inputs whose codes lie together
_MIDDLE = 8  # what is taken off each code
_TRIAL_ROWS = (1, 3, 8, 30)  # several blocks at once and one, one tile of rows and several
_DIFFERENCE = 0.01  # of the product's norm; rounding the outputs makes 0.002
_ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int)

logger = logging.getLogger(__name__)


class _Layer(ctypes.Structure):
    """`struct layer` of the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "middles", "bias")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "group_size")),
    )


def pack(codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None) -> "OwnWeights | None":
    """Make the weights of a layer for the kernel.

    Args:
        codes: `[N, K]`, 0 to 15.
        scales, zeros: `[groups, N]`. N is a multiple of 16, K / groups one of 8.

    Returns:
        None where the kernel cannot be used; the log contains the reason once.
    """
    library = loaded(build.library_file())
    return None if library is None else OwnWeights.of(library, codes, scales, zeros, bias)


class OwnWeights(nn.Module):
    """The weights of a layer as the kernel reads them. library: of `loaded`.

    codes: uint8 `[N / 16, K / 8, 64]`. scales: bfloat16 `[N / 16, groups, 16]`. middles: int8 like scales, 8 - zero
    point; None: all are 0. bias: bfloat16 `[N]` or None.
    """

    def __init__(
        self, library: ctypes.CDLL, codes: Tensor, scales: Tensor, middles: Tensor | None, bias: Tensor | None
    ) -> None:
        super().__init__()
        self._library, self._matmul = library, library.int4_matmul
        self.codes, self.scales, self.middles, self.bias = codes, scales, middles, bias
        self.out_features, self.in_features = codes.shape[0] * _BLOCK, codes.shape[1] * _STEP
        # the tensors of the structure live as long as this, whatever becomes of the module's attributes
        self._read = [None if tensor is None else tensor.contiguous() for tensor in (codes, scales, middles, bias)]
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in self._read]
        self._layer = _Layer(*addresses, self.in_features, self.out_features, self.in_features // scales.shape[1])
        self._address = ctypes.addressof(self._layer)

    @classmethod
    def of(
        cls, library: ctypes.CDLL, codes: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None
    ) -> "OwnWeights":
        """As `pack`."""
        outputs, inputs = codes.shape
        # `[block, output, step, pair, input of the pair]`; a pair's bits lie 4 above those of the pair before
        apart = codes.to(torch.uint8).view(outputs // _BLOCK, _BLOCK, inputs // _STEP, _STEP // 2, 2)
        ordered = apart.permute(0, 2, 1, 4, 3)
        packed = ordered[..., 0::2] | (ordered[..., 1::2] << 4)
        middles = (_MIDDLE - zeros).to(torch.int8)
        return cls(
            library,
            packed.reshape(outputs // _BLOCK, inputs // _STEP, _STEP * _BLOCK // 2),
            _by_block(scales.to(torch.bfloat16)),
            _by_block(middles) if middles.any() else None,
            None if bias is None else bias.to(torch.bfloat16).contiguous(),
        )

    def multiply(self, rows: Tensor) -> Tensor:
        """`[rows, K]` to `[rows, N]`, both bfloat16. Raises TypeError, ValueError; MemoryError."""
        if rows.dtype != torch.bfloat16 or rows.device.type != "cpu":
            raise TypeError(f"the kernel multiplies bfloat16 on a CPU, not {rows.dtype} on {rows.device}")
        if rows.ndim != 2 or rows.shape[1] != self.in_features:
            raise ValueError(f"{list(rows.shape)} are no rows of {self.in_features} inputs")
        rows = rows.contiguous()
        out = torch.empty((len(rows), self.out_features), dtype=torch.bfloat16)
        if self._matmul(self._address, rows.data_ptr(), len(rows), out.data_ptr(), torch.get_num_threads()):
            raise MemoryError(f"no memory for the sums of {len(rows)} rows")
        return out

    @classmethod
    def join(cls, parts: "Sequence[OwnWeights]") -> "OwnWeights":
        """The outputs of all, side by side; either all have a bias or none has."""
        middles = [torch.zeros_like(p.scales, dtype=torch.int8) if p.middles is None else p.middles for p in parts]
        has_middles = any(part.middles is not None for part in parts)
        biases = [part.bias for part in parts if part.bias is not None]
        return cls(
            parts[0]._library,
            torch.cat([part.codes for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat(middles) if has_middles else None,
            torch.cat(biases) if biases else None,
        )


def _by_block(values: Tensor) -> Tensor:
    """`[groups, N]` to `[N / 16, groups, 16]`."""
    return values.view(len(values), -1, _BLOCK).transpose(0, 1).contiguous()


@cache
def loaded(file: Path) -> ctypes.CDLL | None:
    """Return the library if it is built, runs on this CPU and multiplies rightly; else log the reason."""
    if not file.exists():
        logger.info("the 4-bit kernel is not built (`make gptq` does it): torch's takes its place, and is slower")
        return None
    try:
        library = ctypes.CDLL(str(file))
        library.int4_supported.argtypes, library.int4_supported.restype = (), ctypes.c_int
        if not library.int4_supported():
            logger.info("this CPU has no AVX512_BF16: torch's 4-bit kernel multiplies")
            return None
        library.int4_matmul.argtypes = _ARGUMENTS
        library.int4_matmul.restype = ctypes.c_int
        worst = _difference(library)
    except Exception as error:
        logger.warning("the 4-bit kernel does not run (%s): torch's takes its place, and is slower", error)
        return None
    if not worst <= _DIFFERENCE:
        logger.warning("the 4-bit kernel is off by %.1f %%: torch's takes its place, and is slower", 100 * worst)
        return None
    return library


def _difference(library: ctypes.CDLL) -> float:
    """Return the largest difference from the exact product over numbers of rows, as a share of its norm. The layer has
    zero points, a bias, and 5 blocks.
    """
    generator = torch.Generator().manual_seed(0)
    inputs, outputs, groups = 64, 5 * _BLOCK, 2
    codes = torch.randint(16, (outputs, inputs), generator=generator)
    scales = torch.rand((groups, outputs), generator=generator).to(torch.bfloat16)
    zeros = torch.randint(16, (groups, outputs), generator=generator)
    bias = torch.randn(outputs, generator=generator).to(torch.bfloat16)
    weights = OwnWeights.of(library, codes, scales, zeros, bias)
    each = torch.arange(inputs) // (inputs // groups)
    plain = (codes - zeros[each].t()) * scales.double()[each].t()
    differences = []
    for count in _TRIAL_ROWS:
        rows = torch.randn((count, inputs), generator=generator).to(torch.bfloat16)
        exact = rows.double() @ plain.t() + bias
        differences.append(float((weights.multiply(rows) - exact).norm() / exact.norm()))
    return max(differences)
