"""What a worker's process prepares before it loads anything."""

import subprocess
import sys

from tests.stack import ROOT
from tests.waiting import scaled

PROGRAM = """
from workers.main import _prepare_process
_prepare_process()
from tqdm import tqdm
list(tqdm(range(3)))
"""


def test_libraries_draw_no_bars_into_the_log() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=True
    )
    assert ran.stderr == ""
