"""The step of `make gptq` that compiles the kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.engines.gptq.int4_kernel import build

SOURCE_ROOT = Path(__file__).parents[5]


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, str(folder)]
    env = os.environ | environment
    return subprocess.run(command, cwd=SOURCE_ROOT, env=env, capture_output=True, text=True, check=False)


def test_the_file_by_itself_needs_nothing_that_is_installed(tmp_path: Path) -> None:
    ran = run(tmp_path, "-I", "-S", build.__file__)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [file.name for file in tmp_path.iterdir()] == [build.library_file(tmp_path).name]


def test_of_several_sources_the_last_ones_library_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.build(tmp_path) is None
    older = build.library_file(tmp_path)
    changed = tmp_path / "changed.c"
    changed.write_text(build.SOURCE.read_text() + "\n")
    monkeypatch.setattr(build, "SOURCE", changed)
    assert not build.library_file(tmp_path).exists()
    assert build.build(tmp_path) is None
    assert build.library_file(tmp_path).exists()
    assert not older.exists()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/nowhere/cc", "/nowhere/cc does not run (No such file or directory)"), ("false", "false fails: 1")],
)
def test_without_a_compiler_it_prints_one_line_and_exits_with_0(compiler: str, reason: str, tmp_path: Path) -> None:
    ran = run(tmp_path, "-m", build.__name__, CC=compiler)
    assert ran.returncode == 0
    assert ran.stderr == f"no 4-bit kernel of our own, torch's takes its place and is slower: {reason}\n"
    assert list(tmp_path.iterdir()) == []


def test_other_machines_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert build.build(tmp_path) == "there is none for aarch64"
    assert list(tmp_path.iterdir()) == []
