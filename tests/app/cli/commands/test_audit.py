"""`llm-api audit export` against a real Valkey."""

import json
import os
from pathlib import Path

import pytest

from app.jobs import keys
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.store import JobStore
from tests.app.cli.command_line import environment, typed
from tests.app.jobs.conftest import scene
from tests.app.jobs.scene import MODEL, TTL_SECONDS, Scene

__all__ = ["scene"]


@pytest.fixture
def environ(tmp_path: Path, redis_url: str) -> dict[str, str]:
    return environment(tmp_path, 1, LLM_API_REDIS_URL=redis_url)


def canceled(scene: Scene) -> str:
    job_id = scene.admit().id
    scene.store.cancel(job_id)
    return job_id


def test_an_export_has_a_line_for_each_ended_job_and_says_how_to_continue(
    scene: Scene, environ: dict[str, str]
) -> None:
    job_ids = [canceled(scene) for _ in range(3)]
    first = typed("audit", "export", environ=environ)
    assert first.exit_code == 0, first.output
    entries = [json.loads(line) for line in first.stdout.splitlines()]
    assert [entry["job"] for entry in entries] == job_ids
    assert first.stderr == f"3 entries; the next export: --since {entries[-1]['id']}\n"
    later = canceled(scene)
    second = typed("audit", "export", "--since", entries[-1]["id"], environ=environ)
    assert [json.loads(line)["job"] for line in second.stdout.splitlines()] == [later]
    from_second = typed("audit", "export", "--since", entries[0]["id"], environ=environ)
    assert from_second.stdout.count("\n") == 3


def test_an_export_says_that_entries_may_be_missing(scene: Scene, environ: dict[str, str]) -> None:
    limits = LedgerLimits(audit_entries=100)
    scene.store = JobStore(scene.client, model=MODEL, ttl_seconds=TTL_SECONDS, max_queued=-1, ledger=limits)
    for _ in range(250):
        canceled(scene)
    assert "some may be missing" in typed("audit", "export", environ=environ).stderr
    newest = scene.raw.xrevrange(keys.AUDIT, count=1)[0][0]
    assert "missing" not in typed("audit", "export", "--since", newest, environ=environ).stderr


def test_what_is_no_id_and_no_time_is_refused(environ: dict[str, str]) -> None:
    ended = typed("audit", "export", "--since", "yesterday", environ=environ)
    assert (ended.exit_code, "1764412345678-0" in ended.stderr) == (2, True)


def test_a_redis_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    environ = environment(tmp_path, 1, LLM_API_REDIS_URL="redis://127.0.0.1:1")
    ended = typed("audit", "export", environ=environ)
    assert ended.exit_code == os.EX_UNAVAILABLE
    assert ended.stderr.startswith("Error: cannot read from Redis") and ended.stderr.count("\n") == 1
