"""What the trial of a file says, and when it is made: the children are those of the real module."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import ModelUnavailable
from tests.stack import SMOLLM2_FILE
from workers.engines.llama import file_trial
from workers.engines.llama.file_trial import try_file


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the trial by the code in element 0; the list gets one element for each child."""
    code, run = ["pass"], subprocess.run

    def instead(command: list[str], **options: object) -> object:
        code.append(command[-1])
        return run([sys.executable, "-c", code[0]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", instead)
    return code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_a_file_is_tried_once_for_as_long_as_it_is_the_same(child: list[str], file: Path) -> None:
    try_file(file, {})
    try_file(file, {})
    assert child[1:] == [str(file)]
    file.write_bytes(b"GGUF, another")
    try_file(file, {})
    assert child[1:] == [str(file)] * 2
    try_file(file.with_name("missing.gguf"), {})
    assert len(child) == 3, "the worker's own attempt says that it is missing"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),
        (
            "import os, sys; sys.stderr.write('x.c:1: GGML_ASSERT(n > 0) failed\\n\\n'); os.abort()",
            "GGML_ASSERT(n > 0)",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", "SIGFPE"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
)
def test_a_file_that_ends_the_child_is_refused_each_time(child: list[str], file: Path, code: str, reason: str) -> None:
    child[0] = code
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"ends llama\.cpp") as caught:
            try_file(file, {})
        assert reason in caught.value.detail and "\n" not in caught.value.detail


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_the_worker_reports_itself_or_the_system_did_is_no_verdict(
    child: list[str], file: Path, code: str
) -> None:
    child[0] = code
    try_file(file, {})


def test_a_file_that_never_ends_is_refused(child: list[str], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child[0] = "import time; time.sleep(600)"
    monkeypatch.setattr(file_trial, "TRIAL_SECONDS", 0.5)
    with pytest.raises(ModelUnavailable, match=r"keeps llama\.cpp busy"):
        try_file(file, {})


def test_the_child_of_a_sound_file_loads_it_without_a_debugger_or_a_gpu() -> None:
    environment = file_trial._environment()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["GGML_NO_BACKTRACE"]) == ("", "1")
    command = [sys.executable, "-m", "workers.engines.llama.file_trial", str(SMOLLM2_FILE)]
    ran = subprocess.run(command, input=b'{"n_ctx": 256}', env=environment, capture_output=True, check=True)
    assert ran.stderr == b""
