"""The audit stream against a real Valkey: an entry for each ended job, and an export that can be resumed."""

import time

import pytest

from app.jobs import keys
from app.jobs.job import JobRequest, Kind, OutputSource, Status, Usage
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.output_writer import OutputWriter
from app.jobs.principal import Principal
from app.jobs.store import JobStore
from app.ledger.audit import FIRST, entries_after, may_be_missing_after, position
from tests.app.jobs.scene import MODEL, TTL_SECONDS, Scene

SECRET = "a prompt that nobody may read"


def test_the_entry_of_a_job_says_who_what_when_and_how_it_ended(scene: Scene) -> None:
    ann = Principal(owner="key-1", tenant="lab", key_name="ann", label="project x")
    job = scene.store.admit(JobRequest(kind=Kind.GENERATE, prompt=SECRET), ann)
    claim = scene.claimed(job.id)
    scene.publish(claim, "an answer ", "that nobody may read")
    scene.end(claim, usage=Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3))
    (entry,) = entries_after(scene.client, FIRST)
    ended = scene.store.read(job.id)
    assert entry["ended_at"][:19] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ended.completed_at))
    assert entry["created_at"][:19] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ended.created_at))
    assert entry["started_at"] >= entry["created_at"]
    expected = {
        "job": job.id,
        "owner": "key-1",
        "tenant": "lab",
        "key_name": "ann",
        "label": "project x",
        "kind": "generate",
        "model": MODEL,
        "outcome": "succeeded",
        "error": "",
        "source": "computed",
        "attempts": 1,
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "completion_tokens": 2,
        "compute_seconds": float(scene.raw.hget(keys.job(job.id), "ran")),
    }
    assert {name: entry[name] for name in expected} == expected
    assert "nobody may read" not in str(scene.raw.xrange(keys.AUDIT))


def test_jobs_that_no_worker_ends_are_in_it_too(scene: Scene) -> None:
    scene.store.cancel(scene.admit().id)
    claim = scene.running()
    for _ in range(3):
        scene.lose(claim)
        scene.store.claim("worker-1")
    canceled, lost = entries_after(scene.client, FIRST)
    assert (canceled["outcome"], canceled["attempts"], canceled["started_at"]) == ("canceled", 0, None)
    assert (lost["outcome"], lost["error"], lost["attempts"]) == ("failed", "worker_lost", 3)


def test_an_export_continues_after_an_id_or_a_time(scene: Scene) -> None:
    ids = []
    for _ in range(3):
        job = scene.admit()
        scene.store.cancel(job.id)
        ids.append(job.id)
        time.sleep(0.002)
    first, second, third = entries_after(scene.client, FIRST)
    assert [first["job"], second["job"], third["job"]] == ids
    assert [entry["job"] for entry in entries_after(scene.client, first["id"])] == ids[1:]
    assert list(entries_after(scene.client, third["id"])) == []
    assert [entry["job"] for entry in entries_after(scene.client, position(second["ended_at"]))] == ids[1:]


@pytest.mark.parametrize("since", ["yesterday", "", "12", "2026-13-01"])
def test_neither_an_id_nor_a_time_is_refused(since: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        position(since)


def test_a_time_without_a_zone_is_utc() -> None:
    assert position("2026-11-29T10:00:00") == position("2026-11-29T12:00:00+02:00") == position("2026-11-29T10:00:00Z")


def test_older_entries_are_removed_and_an_export_notices_the_gap(scene: Scene) -> None:
    scene.store = JobStore(
        scene.client, model=MODEL, ttl_seconds=TTL_SECONDS, max_queued=-1, ledger=LedgerLimits(audit_entries=100)
    )
    for _ in range(350):
        scene.store.cancel(scene.admit().id)
    kept = list(entries_after(scene.client, FIRST))
    assert 100 <= len(kept) < 300
    assert may_be_missing_after(scene.client, FIRST)
    assert not may_be_missing_after(scene.client, kept[0]["id"])


def test_an_audit_stream_of_no_entries_is_off(scene: Scene) -> None:
    off = LedgerLimits(audit_entries=0)
    scene.writer = OutputWriter(scene.client, model=MODEL, ttl_seconds=TTL_SECONDS, ledger=off)
    scene.end(scene.running(), usage=Usage(), status=Status.FAILED, source=OutputSource.COMPUTED)
    assert list(entries_after(scene.client, FIRST)) == []
    assert not may_be_missing_after(scene.client, FIRST)
