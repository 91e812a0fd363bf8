"""Which kernel multiplies 4-bit layers: ours, built from the current source, or torch's."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workers.engines.gptq.int4_kernel import build
from workers.engines.gptq.int4_kernel.int4_matmul import loaded

CPU = Path("/proc/cpuinfo")
KERNELS = ("ours", "torch's")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernel")
    assert build.build(folder) is None
    return build.library_file(folder)


@pytest.fixture(scope="session")
def library(built: Path) -> ctypes.CDLL:
    if not CPU.exists() or "avx512_bf16" not in CPU.read_text():
        pytest.skip("this CPU has no AVX512_BF16")
    library = loaded(built)
    assert library is not None
    return library


@contextmanager
def the_library_is_at(file: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "library_file", lambda folder=None: file)
        yield


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For the tests of a module, one after the other."""
    file = tmp_path_factory.mktemp("none") / "none.so"
    if request.param == "ours":
        request.getfixturevalue("library")
        file = request.getfixturevalue("built")
    with the_library_is_at(file):
        yield request.param
