"""What is counted once for each job, in the step that ends it."""

import pytest

from app.jobs import keys, totals
from app.jobs.events import End
from app.jobs.job import FinishReason, JobError, Metrics, Output, OutputSource, Priority, Status, Usage
from app.jobs.output_writer import FENCED, WRITTEN, OutputWrite
from app.jobs.record import outcome_fields
from app.jobs.store import Claim
from app.jobs.totals import FIRST_TOKEN_BOUNDS, REQUEST_BOUNDS, TOKEN_BOUNDS, Totals, read_totals
from tests.app.jobs.scene import MAX_ATTEMPTS, MODEL, Scene

USAGE = Usage(prompt_tokens=30, completion_tokens=12, cached_tokens=16)
NAMES = {
    "first_token_seconds": FIRST_TOKEN_BOUNDS,
    "token_seconds": TOKEN_BOUNDS,
    "queue_seconds": REQUEST_BOUNDS,
    "request_seconds": REQUEST_BOUNDS,
}


def end(scene: Scene, claim: Claim, status: Status = Status.SUCCEEDED, **more: object) -> int:
    """Let a worker end a job with usage and metrics."""
    error = JobError(code="engine_error", message="m") if status is Status.FAILED else None
    metrics = Metrics(**{"source": OutputSource.COMPUTED, "queue_seconds": 0.0, **more})  # type: ignore[arg-type]
    fields = outcome_fields(status, output=Output(text="t"), usage=USAGE, metrics=metrics, error=error)
    written = OutputWrite(
        job_id=claim.job_id,
        token=claim.token,
        end=End(status, FinishReason.STOP, USAGE, error),
        end_fields=[part for pair in fields.items() for part in pair],
    )
    (verdict,) = scene.writer.write([written])
    return verdict


def read(scene: Scene) -> Totals:
    return read_totals(scene.client, MODEL)


def test_a_job_counts_once_with_its_tokens_however_often_its_end_is_written(scene: Scene) -> None:
    claim = scene.running(priority=Priority.HIGH)
    assert [end(scene, claim) for _ in range(3)] == [WRITTEN] * 3
    counted = read(scene)
    assert counted.counts("jobs") == [(["succeeded", "stop", "generate", "high"], 1)]
    assert counted.counts("prompt_tokens") == [(["computed"], 30)]
    assert counted.counts("generation_tokens") == [(["computed"], 12)]
    assert counted.counts("cached_tokens") == [(["computed"], 16)]
    assert counted.counts("attempts") == [([], 1)]
    assert counted.counts("errors") == []


def test_a_job_that_two_workers_ran_counts_once_with_two_attempts(scene: Scene) -> None:
    late = scene.running()
    scene.publish(late, "one", "two")
    scene.lose(late)
    claim = scene.next_claim("worker-2")
    assert (end(scene, late), end(scene, claim), end(scene, late)) == (FENCED, WRITTEN, FENCED)
    assert (read(scene).count("jobs"), read(scene).count("attempts")) == (1, 2)
    assert read(scene).count("generation_tokens") == 12


def test_a_job_that_no_worker_ends_counts_with_the_tokens_that_were_published(scene: Scene) -> None:
    poison = scene.running()
    scene.publish(poison, "one", "two")
    for _ in range(MAX_ATTEMPTS - 1):
        scene.lose(poison)
        poison = scene.next_claim()
    scene.lose(poison)
    scene.store.cancel(scene.admit().id)
    counted = read(scene)
    assert counted.counts("jobs") == [
        (["canceled", "-", "generate", "normal"], 1),
        (["failed", "error", "generate", "normal"], 1),
    ]
    assert counted.counts("errors") == [(["worker_lost"], 1)]
    assert counted.counts("generation_tokens") == [(["computed"], 2)]
    assert (counted.counts("prompt_tokens"), counted.count("attempts")) == ([], MAX_ATTEMPTS)


def test_a_response_from_the_cache_is_counted_apart(scene: Scene) -> None:
    end(scene, scene.running(), source=OutputSource.CACHED)
    assert read(scene).counts("generation_tokens") == [(["cached"], 12)]
    assert read(scene).count("cached_responses") == 1


def test_times_fall_into_the_bucket_of_the_first_bound_that_is_not_below_them(scene: Scene) -> None:
    for seconds in (0.001, 0.0011, 9999.0):
        end(scene, scene.running(), time_to_first_token_seconds=seconds, tokens_per_second=10.0, queue_seconds=0.3)
    first = read(scene).distribution("first_token_seconds", FIRST_TOKEN_BOUNDS)
    assert dict(first.buckets) | {"0.001": 1, "0.005": 2, "2560": 2, "+Inf": 3} == dict(first.buckets)
    assert first.total == pytest.approx(9999.0021)
    assert dict(read(scene).distribution("token_seconds", TOKEN_BOUNDS).buckets)["0.1"] == 3
    assert dict(read(scene).distribution("queue_seconds", REQUEST_BOUNDS).buckets)["0.3"] == 3


def test_the_time_of_a_request_is_that_from_its_creation_to_its_end(scene: Scene) -> None:
    claim = scene.running()
    created = float(scene.raw.hget(keys.job(claim.job_id), "created_at") or 0)
    scene.raw.hset(keys.job(claim.job_id), "created_at", f"{created - 7:.6f}")
    end(scene, claim, Status.FAILED)
    end(scene, scene.running(), Status.CANCELED)
    took = read(scene).distribution("request_seconds", REQUEST_BOUNDS)
    assert dict(took.buckets) | {"5": 0, "10": 1, "+Inf": 1} == dict(took.buckets)
    assert 7 <= took.total < 9


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "request_seconds"]
)  # its bounds are those of waiting
def test_the_script_has_the_bounds_that_are_read(scene: Scene, name: str) -> None:
    """A value on each bound falls into its bucket, and one above the last into +Inf."""
    for seconds in (*NAMES[name], NAMES[name][-1] + 1):
        claim = scene.running()
        end(scene, claim, time_to_first_token_seconds=seconds, tokens_per_second=1 / seconds, queue_seconds=seconds)
    assert [count for _, count in read(scene).distribution(name, NAMES[name]).buckets] == [
        *range(1, len(NAMES[name]) + 2)
    ]


def test_the_time_of_a_job_for_later_begins_when_it_may_start(scene: Scene) -> None:
    claim = scene.running()
    created = float(scene.raw.hget(keys.job(claim.job_id), "created_at") or 0)
    times = {"created_at": f"{created - 7200:.6f}", "not_before": f"{created - 7:.6f}"}
    scene.raw.hset(keys.job(claim.job_id), mapping=times)
    end(scene, claim)
    assert 7 <= read(scene).distribution("request_seconds", REQUEST_BOUNDS).total < 3600


def test_every_field_is_a_count_or_a_distribution_that_is_read(scene: Scene) -> None:
    end(scene, scene.running(), time_to_first_token_seconds=1.0, tokens_per_second=1.0)
    end(scene, scene.running(), Status.FAILED)
    fields = {field.split(" ")[0] for field in scene.client.hgetall(keys.totals(MODEL))}
    assert fields == {"jobs", "errors", "attempts", "prompt_tokens", "cached_tokens", "generation_tokens", *NAMES}
    assert all(f"`{field}`" in (totals.Totals.__doc__ or "") for field in fields)
