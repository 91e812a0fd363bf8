"""Schemathesis against a running service: thousands of requests made from `/openapi.json`, right and wrong ones.

It checks each answer: no 5xx, no undocumented status, header or body, and no wrong request accepted.
It takes the operations from the document: first requests that cover each schema, bound by bound, then sequences of
requests. Random ones take minutes: `schemathesis run http://localhost:8000/openapi.json --phases fuzzing`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, engine_config, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled

CASES = 2000
SEQUENCES = 20
CONFIG = Path(__file__).with_name("schemathesis.toml")
SECONDS = 280


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that answers at once."""
    folder = tmp_path_factory.mktemp("instant")
    with (
        running_valkey(folder / "valkey") as server,
        running_stack(folder, server.url, engine_config("instant:Instant")) as running,
    ):
        yield running


@pytest.mark.timeout(300)
def test_2000_requests_are_answered_as_documented(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", CONFIG),
            *("run", f"{stack.url}/openapi.json"),
            *("--checks", "all"),
            *("--phases", "coverage,stateful"),
            *("--max-examples", str(SEQUENCES)),
            "--generation-deterministic",
            *("--request-timeout", f"{scaled(30):.0f}"),
            *("--report-json-path", report),
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=scaled(SECONDS),
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr + stack.log("api")
    assert json.loads(report.read_text())["test_cases"]["generated"] >= CASES
