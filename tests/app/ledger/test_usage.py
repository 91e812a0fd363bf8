"""The ledger of usage against a real Valkey: each end of a job is counted once, and as its record says."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from app.jobs import keys
from app.jobs.job import ANONYMOUS, JobRequest, Kind, OutputSource, Status, Usage
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.output_writer import FENCED, WRITTEN
from app.jobs.principal import Principal
from app.jobs.store import LEASE_SECONDS
from app.ledger.usage import OTHER_LABELS, Counters, Group, UsageRow, read_usage, summed, total
from tests.app.jobs.scene import MAX_ATTEMPTS, MODEL, Scene
from tests.app.ledger.records import recorded

TODAY = datetime.now(UTC).date()
MOST_LABELS = 100


def ledger(scene: Scene, owner: str | None = None) -> list[UsageRow]:
    return list(read_usage(scene.client, TODAY - timedelta(1), TODAY + timedelta(1), owner=owner))


def counted(scene: Scene) -> Counters:
    return total(ledger(scene))


def cancel_one(scene: Scene, principal: Principal) -> None:
    scene.store.cancel(scene.store.admit(JobRequest(kind=Kind.GENERATE, prompt="p"), principal).id)


def test_a_job_is_counted_with_the_usage_that_its_worker_reports(scene: Scene) -> None:
    claim = scene.running()
    scene.publish(claim, "a ", "b ")
    assert counted(scene) == Counters()
    usage = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=5)
    assert scene.end(claim, usage=usage) == WRITTEN
    (row,) = ledger(scene)
    assert (row.day, row.model, row.owner, row.tenant, row.key_name, row.label) == (TODAY, MODEL, "me", "me", "", "")
    assert row.counters == recorded(scene.raw, [claim.job_id])
    assert (row.counters.requests, row.counters.succeeded) == (1, 1)
    tokens = (row.counters.prompt_tokens, row.counters.cached_tokens, row.counters.completion_tokens)
    assert tokens == (7, 5, 3)


def test_a_failed_job_counts_the_tokens_that_its_worker_reports(scene: Scene) -> None:
    claim = scene.running()
    scene.end(claim, status=Status.FAILED, usage=Usage(prompt_tokens=2, completion_tokens=1))
    counters = counted(scene)
    assert (counters.failed, counters.prompt_tokens, counters.completion_tokens) == (1, 2, 1)


def canceled_while_it_waits(scene: Scene) -> str:
    job = scene.admit()
    scene.store.cancel(job.id)
    return job.id


def expired_after_a_claim(scene: Scene) -> str:
    job = scene.admit(expires_in_seconds=0.001)
    time.sleep(0.01)
    assert scene.store.claim("worker-1") is None
    scene.turn()
    return job.id


def expired_before_a_claim(scene: Scene) -> str:
    job = scene.admit(expires_in_seconds=0.001)
    time.sleep(0.01)
    scene.turn()
    return job.id


def canceled_after_its_worker_died(scene: Scene) -> str:
    claim = scene.running()
    scene.publish(claim, "a ", "b ", "c ")
    lose(scene, claim.job_id)
    scene.store.cancel(claim.job_id)
    return claim.job_id


def canceled_before_its_worker_died(scene: Scene) -> str:
    claim = scene.running()
    scene.publish(claim, "a ", "b ", "c ")
    scene.store.cancel(claim.job_id)
    lose(scene, claim.job_id)
    scene.turn()
    return claim.job_id


def canceled_and_handed_back(scene: Scene) -> str:
    claim = scene.running()
    scene.publish(claim, "a ", "b ", "c ")
    scene.raw.hset(keys.job(claim.job_id), "claimed_at", f"{time.time() - 30:.6f}")
    scene.store.cancel(claim.job_id)
    scene.store.hand_back(claim)
    return claim.job_id


def poison(scene: Scene) -> str:
    claim = scene.running()
    scene.publish(claim, "a ", "b ", "c ")
    for _ in range(MAX_ATTEMPTS):
        lose(scene, claim.job_id)
        scene.turn()
        scene.store.claim("worker-1")
    return claim.job_id


def lose(scene: Scene, job_id: str) -> None:
    """Let the worker of a job be lost 30 seconds after the claim."""
    now = time.time()
    times = {"claimed_at": f"{now - 30 - LEASE_SECONDS:.6f}", "lease_until": f"{now:.6f}"}
    scene.raw.hset(keys.job(job_id), mapping=times)
    scene.raw.zadd(keys.running(MODEL), {job_id: now})


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (canceled_while_it_waits, Counters(canceled=1)),
        (expired_after_a_claim, Counters(expired=1)),
        (expired_before_a_claim, Counters(expired=1)),
        (canceled_after_its_worker_died, Counters(canceled=1, completion_tokens=3, compute_microseconds=30_000_000)),
        (canceled_before_its_worker_died, Counters(canceled=1, completion_tokens=3, compute_microseconds=30_000_000)),
        (canceled_and_handed_back, Counters(canceled=1, completion_tokens=3, compute_microseconds=30_000_000)),
        (poison, Counters(failed=1, completion_tokens=3, compute_microseconds=MAX_ATTEMPTS * 30_000_000)),
    ],
)
def test_a_job_that_no_worker_ends_counts_the_tokens_that_were_published(
    scene: Scene, end: Callable[[Scene], str], expected: Counters
) -> None:
    job_id = end(scene)
    counters = counted(scene)
    assert counters == recorded(scene.raw, [job_id])
    assert counters.compute_seconds == pytest.approx(expected.compute_seconds, abs=2)
    assert without_time(counters) == without_time(expected)
    job = scene.store.read(job_id)
    assert job.usage == Usage(completion_tokens=expected.completion_tokens)
    (*_, last) = scene.events(job_id)
    assert getattr(last, "usage", None) == job.usage


def without_time(counters: Counters) -> Counters:
    return counters + Counters(compute_microseconds=-counters.compute_microseconds)


def test_a_job_that_two_workers_ran_counts_once_with_the_time_of_both(scene: Scene) -> None:
    claim = scene.running()
    scene.publish(claim, "a ", "b ")
    lose(scene, claim.job_id)
    scene.turn()
    second = scene.claimed(claim.job_id, "worker-2")
    scene.raw.hset(keys.job(claim.job_id), "claimed_at", f"{time.time() - 10:.6f}")
    assert scene.end(claim, usage=Usage(prompt_tokens=4, completion_tokens=99)) == FENCED
    assert scene.end(second, usage=Usage(prompt_tokens=4, completion_tokens=5)) == WRITTEN
    counters = counted(scene)
    assert counters == recorded(scene.raw, [claim.job_id])
    assert (counters.requests, counters.prompt_tokens, counters.completion_tokens) == (1, 4, 5)
    assert counters.compute_seconds == pytest.approx(40, abs=2)


def test_an_end_that_is_sent_again_counts_once(scene: Scene) -> None:
    claim, usage = scene.running(), Usage(prompt_tokens=4, completion_tokens=5)
    assert [scene.end(claim, usage=usage) for _ in range(3)] == [WRITTEN] * 3
    scene.store.cancel(claim.job_id)
    assert (counted(scene).requests, counted(scene).completion_tokens) == (1, 5)


def test_a_cached_answer_counts_as_a_cache_hit(scene: Scene) -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=7)
    scene.end(scene.running(), usage=usage, source=OutputSource.CACHED)
    scene.end(scene.running(), usage=usage, source=OutputSource.COMPUTED)
    counters = counted(scene)
    assert (counters.succeeded, counters.cache_hits, counters.cached_tokens) == (2, 1, 14)


def test_each_label_of_a_key_has_its_row_until_there_are_too_many(scene: Scene) -> None:
    names = ["", *(f"user {number}" for number in range(MOST_LABELS + 5)), "user 0", "user 104"]
    for name in names:
        cancel_one(scene, Principal(owner="me", tenant="me", label=name))
    rows = {row.label: row.counters.requests for row in ledger(scene)}
    assert len(rows) == MOST_LABELS + 2
    assert (rows[""], rows["user 0"], rows[OTHER_LABELS]) == (1, 2, 6)
    assert sum(rows.values()) == len(names)


def test_a_label_may_have_any_characters(scene: Scene) -> None:
    names = ['a "quoted" one', "back\\slash/", "new\nline", "ümläut 日本", "[*]", "#me"]
    for name in names:
        cancel_one(scene, Principal(owner="me", tenant="me", label=name))
    assert sorted(row.label for row in ledger(scene)) == sorted(names)


def test_a_key_reads_its_own_rows_alone(scene: Scene) -> None:
    for owner in ("me", "key-0123", "key-012", ANONYMOUS):
        cancel_one(scene, Principal(owner=owner, tenant="lab", key_name="a name"))
    assert [row.owner for row in ledger(scene, "key-012")] == ["key-012"]
    assert [row.owner for row in ledger(scene, "key-*")] == []
    assert [(row.tenant, row.key_name) for row in ledger(scene)] == [("lab", "a name")] * 4


def test_a_day_of_usage_is_kept_as_long_as_configured(scene: Scene) -> None:
    canceled_while_it_waits(scene)
    today = TODAY.toordinal() - date(1970, 1, 1).toordinal()
    end_of_day = (today + 1) * 86_400
    assert scene.raw.expiretime(keys.usage(today, MODEL)) == end_of_day + LedgerLimits().usage_days * 86_400
    for age in (1, 400, 401):
        scene.raw.zadd(keys.USAGE, {f"{today - age} {MODEL}": today - age})
    scene.raw.delete(keys.usage(today, MODEL))  # as if a new day began
    canceled_while_it_waits(scene)
    assert scene.raw.zrange(keys.USAGE, 0, -1) == [f"{today - age} {MODEL}" for age in (400, 1, 0)]


def test_rows_are_summed_by_any_groups(scene: Scene) -> None:
    day, next_day = date(2026, 11, 28), date(2026, 11, 29)

    def row(day: date, owner: str, name: str, tokens: int, **more: Any) -> UsageRow:
        values = {"model": "m", "tenant": "lab", "label": "", **more}
        counters = Counters(succeeded=1, completion_tokens=tokens)
        return UsageRow(day=day, owner=owner, key_name=name, counters=counters, **values)

    rows = [row(day, "k1", "ann", 1), row(next_day, "k1", "anna", 2), row(next_day, "k2", "bob", 4, label="x")]
    by_key = summed(rows, [Group.KEY])
    assert [(one.values, one.key_name, one.counters.completion_tokens) for one in by_key] == [
        ({Group.KEY: "k1"}, "anna", 3),
        ({Group.KEY: "k2"}, "bob", 4),
    ]
    by_day_and_label = summed(rows, [Group.DAY, Group.LABEL])
    assert [list(one.values.values()) for one in by_day_and_label] == [
        ["2026-11-28", ""],
        ["2026-11-29", ""],
        ["2026-11-29", "x"],
    ]
    assert [one.counters.requests for one in summed(rows, [Group.TENANT])] == [3]
    assert total(rows) == Counters(succeeded=3, completion_tokens=7)
