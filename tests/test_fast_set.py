"""The promises of `make test-fast`: it selects most tests, and collecting them loads no model library."""

import ast
import subprocess
import sys

from tests.conftest import MARKED_PATHS, MODEL_LIBRARIES
from tests.stack import ROOT
from tests.waiting import scaled

COLLECT = f"""
import sys
import pytest

class Count:
    def pytest_collection_finish(self, session):
        self.tests = len(session.items)

pytest.main(["--collect-only", "--quiet", "--quiet", "-m", "not model and not slow"], plugins=[count := Count()])
print((count.tests, sorted({MODEL_LIBRARIES!r} & sys.modules.keys())))
"""


def test_the_fast_set_is_most_of_the_tests_and_its_modules_import_no_model_library() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=True
    )
    tests, libraries = ast.literal_eval(ran.stdout.splitlines()[-1])
    assert tests > 1000
    assert libraries == []


def test_every_path_that_is_marked_exists() -> None:
    assert [path for paths in MARKED_PATHS.values() for path in paths if not (ROOT / path).exists()] == []
