"""Memory that a large request leaves behind."""

import subprocess
import sys

import pytest

from tests.stack import ROOT

_PROGRAM = """
import psutil
from app.freed_memory import give_back_after

def garbage(megabytes):
    kept = []
    for _ in range(megabytes):
        cycle = [bytes(1000) for _ in range(1000)]
        cycle.append(cycle)
        kept.append([])
    return kept

before = psutil.Process().memory_info().rss
kept = garbage(50)
give_back_after({environ})
print((psutil.Process().memory_info().rss - before) // 1_000_000)
"""


def _left_megabytes(environ: dict[str, str]) -> int:
    program = _PROGRAM.replace("{environ}", repr(environ))
    code = f"import gc; gc.set_threshold(10**9)\n{program}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.parametrize(
    ("environ", "comes_back"),
    [
        ({"CONTENT_LENGTH": "3800000"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
        ({"CONTENT_LENGTH": "100"}, False),
        ({}, False),
    ],
)
def test_memory_of_a_large_request_goes_back_to_the_system(environ: dict[str, str], comes_back: bool) -> None:
    assert (_left_megabytes(environ) < 10) == comes_back
