import ctypes
import logging
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers.engines.llama.library import ggml_library, library_log
from workers.engines.llama.rows_kernel import build
from workers.engines.llama.rows_kernel.loading import differing, enable, type_name, types

OLDER_VERSION = "rows-000000000000.so"
TYPES = [
    "q8_0",
    "q5_0",
    "q4_1",
    "q5_1",
    "q4_K",
    "q4_K",
    "q5_K",
    "q5_K",
    "q6_K",
    "q6_K",
]  # of K types one for a single row, one for several
TEXTS = """
import hashlib, random, sys
from pathlib import Path
from tests.stack import SMOLLM2_FILE
from tests.bench.bare_loop import Bare
from workers.engines.llama.library import ggml_library
from workers.engines.llama.rows_kernel.loading import enable
used = sys.argv[1] == "with" and bool(enable(ggml_library))
random.seed(7)
prompts = [[random.randrange(100, 40_000) for _ in range(length)] for length in (3, 14, 60, 250)]
print(used, Bare(str(SMOLLM2_FILE), 4, 512).run(prompts, [24] * 4)[1])
"""

THREADS = """
import os, time
from workers.engines.llama.library import ggml_library
from workers.engines.llama.rows_kernel.loading import enable
before = len(os.listdir("/proc/self/task"))
used, end = bool(enable(ggml_library)), time.monotonic() + 10
while len(os.listdir("/proc/self/task")) > before and time.monotonic() < end:
    time.sleep(0.01)
print(used, len(os.listdir("/proc/self/task")) - before)
"""


@pytest.fixture(scope="module")
def module() -> ctypes.CDLL:
    library_log()
    if platform.machine() != "x86_64":
        pytest.skip("the kernel of several rows is for x86-64")
    library = ctypes.CDLL(str(build.library_file()))
    if not library.rows_supported():
        pytest.skip("needs a CPU that has AVX-512 with VNNI")
    return library


def test_it_has_kernels_for_these_types(module: ctypes.CDLL) -> None:
    assert [type_name(ggml_library, ggml_type) for _, ggml_type in types(module)] == TYPES


@pytest.mark.parametrize("index", range(len(TYPES)), ids=TYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 33])
def test_every_bit_of_a_product_is_that_of_ggmls_kernel_for_one_row(module: ctypes.CDLL, index: int, rows: int) -> None:
    for threads in (1, 3):
        assert differing(ggml_library, module, index, 3, 64, rows, threads) == 0


@pytest.mark.parametrize("index", range(len(TYPES)), ids=TYPES)
@pytest.mark.parametrize(("blocks", "outputs"), [(1, 32), (2, 512), (43, 32)])
def test_every_bit_is_ggmls_for_layers_of_any_size(module: ctypes.CDLL, index: int, blocks: int, outputs: int) -> None:
    assert differing(ggml_library, module, index, blocks, outputs, 9) == 0


def test_a_model_chooses_the_same_tokens_with_and_without_it(module: ctypes.CDLL) -> None:
    tokens = {}
    for kind in ("with", "without"):
        ran = subprocess.run([sys.executable, "-c", TEXTS, kind], stdout=subprocess.PIPE, check=True, text=True)
        used, _, tokens[kind] = ran.stdout.strip().splitlines()[-1].partition(" ")
        assert used == str(kind == "with")
    assert tokens["with"] == tokens["without"]


def test_its_trial_leaves_no_threads_that_would_slow_the_batch_loops(module: ctypes.CDLL) -> None:
    ran = subprocess.run([sys.executable, "-c", THREADS], stdout=subprocess.PIPE, check=True, text=True)
    assert ran.stdout.split() == ["True", "0"]


def test_where_it_was_not_built_it_is_logged_that_ggml_multiplies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert not enable(ggml_library, tmp_path / "rows-1.so")
    assert caplog.messages == [
        "quantized weights are multiplied row by row: the kernels of several rows were not built"
    ]


def test_a_file_that_is_no_library_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rows-1.so").write_bytes(b"no library")
    with caplog.at_level(logging.INFO):
        assert not enable(ggml_library, tmp_path / "rows-1.so")
    assert "invalid ELF header" in caplog.text or "file too short" in caplog.text


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel of several rows is for x86-64")
def test_a_kernel_with_other_results_is_left_out_and_the_others_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    library_log()
    for header in build.HEADERS:
        shutil.copy(build.SOURCE.with_name(header), tmp_path)
    right = (tmp_path / "blocks_of_256.h").read_text()
    cut = "bits == 6 ? sum_of_eight(sums[row]) :"
    assert right.count(cut) == 1
    (tmp_path / "blocks_of_256.h").write_text(right.replace(cut, cut.replace("sum", "-sum", 1)))
    monkeypatch.setattr(build, "SOURCE", Path(shutil.copy(build.SOURCE, tmp_path)))
    assert build.build(tmp_path) is None
    with caplog.at_level(logging.INFO):
        used = enable(ggml_library, build.library_file(tmp_path))
    if "no AVX-512" not in caplog.text:
        assert sorted(type_name(ggml_library, ggml_type) for ggml_type in used) == sorted(set(TYPES) - {"q6_K"})
        (line,) = caplog.messages
        assert line.startswith("q6_K weights are multiplied row by row: the kernel differs from ggml's in")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel of several rows is for x86-64")
def test_a_build_that_fails_leaves_no_library_and_returns_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    assert build.build(tmp_path) == "false fails: 1"
    assert list(tmp_path.glob("*.so")) == []


def test_a_machine_of_another_kind_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build.build(tmp_path) == "there is none for aarch64"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel of several rows is for x86-64")
def test_a_build_replaces_those_of_older_sources_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / OLDER_VERSION).touch()
    (tmp_path / "int4_matmul-000000000000.so").touch()
    assert build.build(tmp_path) is None
    assert {file.name for file in tmp_path.iterdir()} == {
        build.library_file(tmp_path).name, "int4_matmul-000000000000.so",
    }  # fmt: skip
