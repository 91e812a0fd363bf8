"""The limits of API keys: counted when a job is admitted, settled when it ends, for all processes."""

import calendar
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from app.errors import BudgetSpent, InvalidRequest, RateLimited
from app.jobs import keys
from app.jobs import limits as limits_module
from app.jobs.events import End
from app.jobs.job import Job, JobRequest, Kind, Metrics, Output, Status, Usage
from app.jobs.limits import BATCH_SHARE, RequestCounter, estimated_tokens, with_max_tokens
from app.jobs.output_writer import WRITTEN, OutputWrite
from app.jobs.principal import ANONYMOUS_PRINCIPAL
from app.jobs.record import outcome_fields
from app.jobs.redis_client import RedisClient
from app.jobs.sampling import MAX_TOKENS
from app.jobs.store import Claim, JobStore
from tests.app.jobs.scene import MODEL, Scene
from tests.principals import key_named

ADA, BOB = key_named("key-ada"), key_named("key-bob")
COUNTS, ACTIVE = keys.limits("key-ada"), keys.active("key-ada")
ESTIMATE = 100  # tokens of `REQUEST`


@pytest.fixture
def scene(redis_url: str, redis_client: RedisClient) -> Scene:
    return Scene(redis_client, redis.Redis.from_url(redis_url, decode_responses=True), redis_url)


REQUEST = JobRequest(kind=Kind.GENERATE, prompt="four" * 20, params={"max_tokens": 80})


def limit(scene: Scene, **limits: int) -> None:
    scene.raw.hset(keys.api_key("key-ada"), mapping={name: str(number) for name, number in limits.items()})


def admit(scene: Scene, request: JobRequest = REQUEST, **options: Any) -> Job:
    return scene.store.admit(request, ADA, **options)


def refused(scene: Scene, request: JobRequest = REQUEST, **options: Any) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        admit(scene, request, **options)
    return caught.value


def end(scene: Scene, claim: Claim, *, prompt: int = 0, completion: int = 0) -> None:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    fields = outcome_fields(Status.SUCCEEDED, output=Output(), usage=usage, metrics=Metrics(), error=None)
    pairs = [part for pair in fields.items() for part in pair]
    write = OutputWrite(job_id=claim.job_id, token=claim.token, end=End(Status.SUCCEEDED), end_fields=pairs)
    assert scene.writer.write([write]) == [WRITTEN]


def run(scene: Scene, *, prompt: int = 0, completion: int = 0) -> None:
    """Admit a job that takes these tokens, and end it."""
    end(scene, scene.claimed(admit(scene).id), prompt=prompt, completion=completion)


def in_the_past(scene: Scene, seconds: float) -> None:
    """Let what has been counted be older."""
    for name in ("tokens_at", "requests_at"):
        at = scene.raw.hget(COUNTS, name)
        if at is not None:
            scene.raw.hset(COUNTS, name, str(float(at) - seconds))


def used(scene: Scene, period: str) -> int:
    return int(float(scene.raw.hget(COUNTS, f"{period}_tokens") or 0))


def test_the_estimate_is_a_quarter_of_the_characters_and_what_may_be_written() -> None:
    assert estimated_tokens(REQUEST) == ESTIMATE
    assert estimated_tokens(JobRequest(kind=Kind.GENERATE, prompt_tokens=(1, 2, 3), params={"max_tokens": 0})) == 3
    assert estimated_tokens(JobRequest(kind=Kind.GENERATE, prompt="x", params={"max_tokens": MAX_TOKENS})) == 1 + 256
    assert estimated_tokens(JobRequest(kind=Kind.EMBED, texts=("four" * 5, (1, 2)))) == 5 + 2


def test_a_key_without_limits_and_requests_without_keys_are_not_counted(scene: Scene) -> None:
    for principal in (ADA, ANONYMOUS_PRINCIPAL):
        scene.store.cancel(scene.store.admit(REQUEST, principal).id)
    assert scene.raw.keys(keys.active("*")) == scene.raw.keys(keys.limits("*")) == []


def test_jobs_that_have_not_ended_are_bounded_until_one_ends(scene: Scene) -> None:
    limit(scene, concurrent_jobs=2)
    waiting, running = admit(scene), scene.claimed(admit(scene).id)
    error = refused(scene)
    assert (error.limit, error.status, error.code) == ("concurrent_jobs", 429, "rate_limit_exceeded")
    assert error.detail == "concurrent_jobs: 2 jobs of this API key run or wait; wait until one has ended"
    assert (error.retry_after_seconds, error.waiting) == (None, 2)
    scene.store.admit(REQUEST, BOB)
    end(scene, running)
    admit(scene)
    refused(scene)
    scene.store.cancel(waiting.id)
    admit(scene)


def test_jobs_that_wait_are_bounded_and_those_that_run_do_not_count(scene: Scene) -> None:
    limit(scene, waiting_jobs=1)
    first = admit(scene)
    assert refused(scene).limit == "waiting_jobs"
    claim = scene.claimed(first.id)
    second = admit(scene)
    assert refused(scene).limit == "waiting_jobs"
    scene.store.cancel(second.id)
    scene.store.hand_back(claim)
    assert refused(scene).limit == "waiting_jobs", "it waits again"
    scene.lose(scene.claimed(first.id))
    assert refused(scene).limit == "waiting_jobs", "and again"


def test_jobs_for_later_wait_and_expired_ones_do_not(scene: Scene) -> None:
    limit(scene, waiting_jobs=1)
    later = JobRequest(kind=Kind.GENERATE, prompt="p", not_before=time.time() + 1000, expires_in_seconds=5.0)
    job = admit(scene, later)
    assert refused(scene).limit == "waiting_jobs"
    scene.raw.zadd(keys.expiring(MODEL), {job.id: 1})
    scene.turn()
    admit(scene)


def test_a_refused_job_leaves_nothing_and_a_repeated_one_counts_once(scene: Scene) -> None:
    limit(scene, concurrent_jobs=1, tokens_per_day=1000)
    first = admit(scene, idempotency_key="a")
    assert admit(scene, idempotency_key="a").id == first.id, "the same request is no second job"
    before = scene.raw.keys()
    refused(scene)
    assert sorted(scene.raw.keys()) == sorted(before)
    assert used(scene, "day") == ESTIMATE and scene.raw.zcard(ACTIVE) == 1


def test_the_tokens_of_a_minute_are_estimated_and_settled_at_the_end(scene: Scene) -> None:
    limit(scene, tokens_per_minute=250)
    claims = [scene.claimed(admit(scene).id) for _ in range(2)]
    error = refused(scene)
    assert (error.limit, error.retry_after_seconds) == ("tokens_per_minute", 12), "50 tokens drain in 12 s"
    end(scene, claims[0], prompt=5, completion=5)
    admit(scene)
    end(scene, claims[1], prompt=20, completion=80)
    assert refused(scene).retry_after_seconds == pytest.approx(0.24 * (10 + 100 + 100 + 100 - 250) * 1.0, abs=1.1)


def test_what_a_job_took_beyond_its_estimate_is_drained_before_the_next(scene: Scene) -> None:
    limit(scene, tokens_per_minute=600)
    run(scene, prompt=20, completion=1780)
    assert refused(scene).retry_after_seconds == pytest.approx(130, abs=1), "1,800 used, 500 must be left"
    in_the_past(scene, 131)
    admit(scene)


def test_of_what_has_drained_of_an_estimate_nothing_is_given_back(scene: Scene) -> None:
    limit(scene, tokens_per_minute=200)
    slow = scene.claimed(admit(scene).id)
    scene.raw.hset(keys.job(slow.job_id), "counted_at", str(time.time() - 60))
    in_the_past(scene, 60)
    busy = scene.claimed(admit(scene).id)
    end(scene, slow, prompt=1)
    state = RequestCounter(scene.client).state("key-ada").tokens
    assert state is not None and state.remaining == pytest.approx(100, abs=2), "the other job has taken the rest"
    end(scene, busy, prompt=1)
    state = RequestCounter(scene.client).state("key-ada").tokens
    assert state is not None and state.remaining == pytest.approx(198, abs=2)


def test_a_request_larger_than_a_minute_runs_when_the_minute_is_unused(scene: Scene) -> None:
    limit(scene, tokens_per_minute=10)
    admit(scene)
    assert refused(scene).limit == "tokens_per_minute"


@pytest.mark.parametrize(("name", "period"), [("tokens_per_day", "day"), ("tokens_per_month", "month")])
def test_a_budget_counts_what_jobs_took_and_begins_anew(scene: Scene, name: str, period: str) -> None:
    limit(scene, **{name: 450})
    run(scene, prompt=100, completion=210)
    assert used(scene, period) == 310
    admit(scene)
    error = refused(scene)
    assert isinstance(error, BudgetSpent) and (error.limit, error.code) == (name, "budget_spent")
    now = datetime.now(UTC)
    days = 1 if period == "day" else calendar.monthrange(now.year, now.month)[1] - now.day + 1
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    left = days * 86_400 - (now - midnight).total_seconds()
    assert error.retry_after_seconds == pytest.approx(left, abs=2)
    scene.raw.hincrby(COUNTS, period, -1)  # what was counted is of the period before
    admit(scene)
    assert used(scene, period) == ESTIMATE


def test_a_job_that_ends_after_midnight_counts_for_its_day_and_beyond_its_estimate_for_the_next(scene: Scene) -> None:
    limit(scene, tokens_per_day=10_000)
    claims = [scene.claimed(admit(scene).id) for _ in range(2)]
    for claim in claims:
        scene.raw.hset(keys.job(claim.job_id), "counted_at", str(time.time() - 86_400))
    scene.raw.hincrby(COUNTS, "day", -1)
    end(scene, claims[0], prompt=10, completion=20)
    assert used(scene, "day") == 2 * ESTIMATE, "of yesterday"
    end(scene, claims[1], prompt=20, completion=580)
    assert used(scene, "day") == 500


def test_jobs_that_end_without_a_worker_cost_what_was_published(scene: Scene) -> None:
    limit(scene, tokens_per_day=10_000, concurrent_jobs=5)
    scene.store.cancel(admit(scene).id)
    assert used(scene, "day") == 0, "it never ran"
    claim = scene.claimed(admit(scene).id)
    scene.publish(claim, "a", "b", "c")
    scene.lose(claim)
    for _ in range(2):
        scene.lose(scene.claimed(claim.job_id))
    assert scene.store.read(claim.job_id).status is Status.FAILED
    assert (used(scene, "day"), scene.raw.zcard(ACTIVE)) == (3, 0)


def test_the_counts_of_all_processes_are_one_and_equal_the_usage_of_the_jobs(
    scene: Scene, redis_client: RedisClient
) -> None:
    limit(scene, tokens_per_day=100_000, tokens_per_month=100_000)
    stores = [JobStore(redis_client, model=model, ttl_seconds=60, max_queued=-1) for model in (MODEL, "other")]
    scene.raw.set(keys.alive("other"), "any-worker")
    total = 0
    for number in range(20):
        store = stores[number % 2]
        claim = scene.claimed(store.admit(REQUEST, ADA).id) if number % 2 == 0 else store.claim("w", str(number))
        if claim is None:
            store.admit(REQUEST, ADA)
            claim = store.claim("w", f"again {number}")
        assert claim is not None
        tokens = 37 * number % 301
        end(scene, claim, prompt=tokens, completion=number)
        total += tokens + number
    assert used(scene, "day") == used(scene, "month") == total


def test_jobs_of_batches_leave_half_of_what_may_run_at_once(scene: Scene) -> None:
    limit(scene, concurrent_jobs=4, tokens_per_minute=1000)
    for _ in range(2):
        admit(scene, limit_share=BATCH_SHARE)
    assert refused(scene, limit_share=BATCH_SHARE).limit == "concurrent_jobs"
    for _ in range(2):
        admit(scene)
    assert refused(scene).limit == "concurrent_jobs"
    limit(scene, concurrent_jobs=100)
    admit(scene, limit_share=BATCH_SHARE)
    assert refused(scene, limit_share=BATCH_SHARE).limit == "tokens_per_minute"
    admit(scene)


def test_a_changed_limit_counts_at_once(scene: Scene) -> None:
    limit(scene, concurrent_jobs=1)
    admit(scene)
    refused(scene)
    limit(scene, concurrent_jobs=2)
    admit(scene)
    scene.raw.hset(keys.api_key("key-ada"), "concurrent_jobs", "")
    admit(scene)


def test_requests_of_a_minute_are_counted_and_drain_evenly(scene: Scene, redis_client: RedisClient) -> None:
    limit(scene, requests_per_minute=3)
    counters = [RequestCounter(redis_client), RequestCounter(redis_client)]
    for number in range(3):
        counters[number % 2].count("key-ada")
    with pytest.raises(RateLimited) as caught:
        counters[1].count("key-ada")
    assert (caught.value.limit, caught.value.retry_after_seconds) == ("requests_per_minute", 20)
    assert caught.value.detail == "requests_per_minute: 3 requests a minute are used; send less often"
    state = counters[0].state("key-ada")
    assert state.tokens is None and state.requests is not None
    assert (state.requests.limit, state.requests.remaining) == (3, 0)
    assert state.requests.reset_seconds == pytest.approx(60, abs=1)
    in_the_past(scene, 20)
    counters[0].count("key-ada")
    with pytest.raises(RateLimited):
        counters[0].count("key-ada")
    RequestCounter(redis_client).count("key-bob")


def test_the_most_tokens_of_a_key_bound_each_request() -> None:
    def most(**params: int) -> Any:
        request = JobRequest(kind=Kind.GENERATE, prompt="p", params=dict(params))
        return with_max_tokens(request, 200).params.get("max_tokens")

    assert (most(max_tokens=200), most(max_tokens=5)) == (200, 5)
    assert most(max_tokens=MAX_TOKENS) == 200, "as many as fit"
    assert most() == 128, "the default of every family"
    request = JobRequest(kind=Kind.GENERATE, prompt="p")
    assert with_max_tokens(request, 7).params == {"max_tokens": 7}
    assert with_max_tokens(request, None) is request
    embedding = JobRequest(kind=Kind.EMBED, texts=("p",))
    assert with_max_tokens(embedding, 7) is embedding
    with pytest.raises(InvalidRequest, match="at most 200") as caught:
        most(max_tokens=201)
    assert list(caught.value.errors) == ["params.max_tokens"]


@pytest.fixture
def month_of(scene: Scene) -> Callable[[datetime], tuple[int, float]]:
    """Return the number of a month, and when it ends, as `limits.lua` computes them."""
    source = (Path(limits_module.__file__).parent / "lua" / "limits.lua").read_text()
    lua = f"{source}\nlocal month, ends = month_of(tonumber(ARGV[1])) return {{month, ends}}"

    def compute(moment: datetime) -> tuple[int, float]:
        month, ends = scene.raw.eval(lua, 0, str(moment.timestamp()))
        return int(month), float(ends)

    return compute


def test_months_are_those_of_the_calendar(month_of: Callable[[datetime], tuple[int, float]]) -> None:
    previous = None
    for index in range(12 * 12 + 14):
        year, month = 2023 + index // 12, index % 12 + 1
        begins = datetime(year, month, 1, tzinfo=UTC)
        ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        numbers = {month_of(moment)[0] for moment in (begins, begins.replace(day=28, hour=23))}
        assert month_of(begins)[1] == ends.timestamp() == month_of(begins.replace(day=28))[1]
        assert len(numbers) == 1 and (previous is None or numbers == {previous + 1})
        (previous,) = numbers
    assert month_of(datetime(2100, 2, 28, tzinfo=UTC))[1] == datetime(2100, 3, 1, tzinfo=UTC).timestamp()
