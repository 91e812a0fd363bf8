"""The 4-bit kernel against its definition: x times scale * (code - zero point)."""

import ctypes
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor

from tests.stack import ROOT
from workers.engines.gptq.int4_kernel import build
from workers.engines.gptq.int4_kernel.int4_matmul import OwnWeights, loaded
from workers.engines.gptq.layers import Int4Linear, TorchWeights

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 24, 25, 40, 300)
SHAPES = [(16, 64, 32), (112, 128, 64), (960, 576, 32), (96, 1536, 128), (80, 2048, 64), (32, 96, 96), (48, 40, 8)]
ROUNDED = 0.0025  # of the product's norm: outputs of 8 bits
RACING = 4


@dataclass
class Layer:
    """codes `[N, K]`; scales, zeros `[groups, N]`; bias `[N]` or None."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    @classmethod
    def random(cls, outputs: int, inputs: int, size: int, *, symmetric: bool, bias: bool, seed: int = 1) -> "Layer":
        generator = torch.Generator().manual_seed(seed)
        groups = inputs // size
        zeros = torch.randint(16, (groups, outputs), generator=generator)
        return cls(
            codes=torch.randint(16, (outputs, inputs), generator=generator, dtype=torch.int32),
            scales=(torch.rand((groups, outputs), generator=generator) * 0.02 + 0.001).to(torch.bfloat16),
            zeros=torch.full_like(zeros, 8) if symmetric else zeros,
            bias=torch.randn(outputs, generator=generator).to(torch.bfloat16) if bias else None,
        )

    def weights(self, library: ctypes.CDLL) -> OwnWeights:
        return OwnWeights.of(library, self.codes, self.scales, self.zeros, self.bias)

    def exact(self, rows: Tensor) -> Tensor:
        size = self.codes.shape[1] // len(self.scales)
        scales, zeros = (each.double().repeat_interleave(size, dim=0).t() for each in (self.scales, self.zeros))
        product = rows.double() @ (scales * (self.codes - zeros)).t()
        return product if self.bias is None else product + self.bias.double()


def random_rows(rows: int, inputs: int) -> Tensor:
    """Some inputs are far larger than others, as in models."""
    values = torch.randn((rows, inputs), generator=torch.Generator().manual_seed(2))
    values[:, 3] *= 100
    return values.to(torch.bfloat16)


def difference(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> int:
    """Set the number of threads that torch computes with."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    request.addfinalizer(lambda: torch.set_num_threads(before))
    return int(request.param)


@pytest.mark.parametrize(("outputs", "inputs", "size"), SHAPES)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_its_products_are_those_of_the_weights(
    outputs: int, inputs: int, size: int, symmetric: bool, bias: bool, library: ctypes.CDLL, threads: int
) -> None:
    layer = Layer.random(outputs, inputs, size, symmetric=symmetric, bias=bias)
    weights, rows = layer.weights(library), random_rows(max(ROWS), inputs)
    exact = layer.exact(rows)
    for count in ROWS:
        assert difference(weights.multiply(rows[:count]), exact[:count]) < ROUNDED


@pytest.mark.parametrize("inputs", [576, 2048])
def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(inputs: int, library: ctypes.CDLL) -> None:
    weights = Layer.random(80, inputs, 32, symmetric=False, bias=True).weights(library)
    rows = random_rows(max(ROWS), inputs)
    together = weights.multiply(rows)
    for count in ROWS:
        assert torch.equal(weights.multiply(rows[-count:]), together[-count:])


def test_its_outputs_are_the_exact_ones_rounded_and_torchs_are_not_with_zero_points(library: ctypes.CDLL) -> None:
    layer, rows = Layer.random(576, 576, 32, symmetric=False, bias=False), random_rows(64, 576)
    rounded = layer.exact(rows).to(torch.bfloat16)
    torchs = TorchWeights.of(layer.codes, layer.scales, layer.zeros.to(torch.bfloat16), None)
    assert float((layer.weights(library).multiply(rows) == rounded).double().mean()) > 0.999
    assert float((torchs.multiply(rows) == rounded).double().mean()) < 0.9


def test_rows_need_not_be_contiguous(library: ctypes.CDLL) -> None:
    layer = Layer.random(32, 64, 32, symmetric=True, bias=False)
    wide = random_rows(9, 128)
    assert difference(layer.weights(library).multiply(wide[:, 64:]), layer.exact(wide[:, 64:])) < ROUNDED
    assert layer.weights(library).multiply(wide[:0, 64:]).shape == (0, 32)


def test_inputs_that_the_kernel_cannot_read_are_refused(library: ctypes.CDLL) -> None:
    weights = Layer.random(32, 64, 32, symmetric=True, bias=False).weights(library)
    with pytest.raises(TypeError, match=r"bfloat16 on a CPU, not torch.float32 on cpu"):
        weights.multiply(torch.zeros(2, 64))
    with pytest.raises(ValueError, match=r"\[2, 32\] are no rows of 64 inputs"):
        weights.multiply(torch.zeros(2, 32, dtype=torch.bfloat16))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_joined_layers_have_the_outputs_of_the_single_ones(bias: bool, library: ctypes.CDLL) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    layers = []
    for index, outputs in enumerate((48, 16, 32)):  # the second has only zero points of 8
        layer = Layer.random(outputs, 64, 32, symmetric=index == 1, bias=bias, seed=index)
        weights = layer.weights(library)
        layers.append(Int4Linear(weights, inputs=64, outputs=outputs, group_size=32, permutation=order))
    joined, rows = Int4Linear.join(layers), random_rows(10, 64).view(2, 5, 64)
    assert joined is not None
    assert torch.equal(joined(rows), torch.cat([layer(rows) for layer in layers], dim=-1))


def test_threads_of_python_multiply_at_once(library: ctypes.CDLL) -> None:
    layer, rows = Layer.random(96, 2048, 32, symmetric=False, bias=True), random_rows(40, 2048)
    weights = layer.weights(library)
    expected = weights.multiply(rows)
    equal: list[bool] = []

    def race() -> None:
        equal.append(all(torch.equal(weights.multiply(rows), expected) for _ in range(20)))

    racing = [Thread(target=race) for _ in range(RACING)]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join()
    assert equal == [True] * RACING


# in a process of its own: in this one an earlier test may have loaded llama.cpp, and with it the system's libgomp
_MAPPED = """
import sys
from pathlib import Path
import torch
from workers.engines.gptq.int4_kernel.int4_matmul import loaded
assert loaded(Path(sys.argv[1])) is not None
print(*{line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "gomp" in line}, sep="\\n")
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_there_is_one_libgomp_and_it_is_torchs(library: ctypes.CDLL) -> None:
    command = [sys.executable, "-c", _MAPPED, library._name]
    (mapped,) = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert Path(torch.__file__).resolve().parent in Path(mapped).resolve().parents


def test_a_library_that_is_not_built_or_is_none_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert loaded(tmp_path / "missing.so") is None
    assert "is not built" in caplog.text
    (tmp_path / "damaged.so").write_text("no library")
    assert loaded(tmp_path / "damaged.so") is None
    assert "does not run" in caplog.text


def test_a_library_that_multiplies_wrongly_is_not_used(
    library: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "int4_matmul.c"
    wrong.write_text(build.SOURCE.read_text().replace("0x40e0}", "0x4100}"))  # 8 for 7
    monkeypatch.setattr(build, "SOURCE", wrong)
    assert build.build(tmp_path) is None
    assert loaded(build.library_file(tmp_path)) is None
    assert "the 4-bit kernel is off by" in caplog.text
