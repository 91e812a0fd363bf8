"""Fair shares of tenants: the scripts over a real Valkey, with workers whose engine is simulated."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.api.queue_estimate import QueueEstimate
from app.jobs import keys
from app.jobs.events import End
from app.jobs.job import Job, Kind, Metrics, OutputSource, Priority, Status, Usage
from app.jobs.output_writer import WRITTEN, OutputWrite
from app.jobs.principal import Principal
from app.jobs.queue_positions import QueuePosition, QueuePositions
from app.jobs.record import outcome_fields
from app.jobs.sharing import Sharing
from app.jobs.store import Claim
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce
from tests.app.jobs.scene import MODEL, Scene
from tests.fair_shares import backlogged, mixed_tenants, waits_of_a_small_tenant
from tests.principals import key_named
from tests.simulated_workers import SimulatedWorkers, Tenant
from tests.waiting import scaled

CLASS = 3e15  # of the scores of waiting jobs


@pytest.fixture
def workers(scene: Scene) -> SimulatedWorkers:
    """Two workers of four slots each."""
    return SimulatedWorkers(scene.raw, scene.store, scene.writer, slots=4)


def tenant(name: str, prompt: int = 10, length: int = 50, *, weight: float = 1.0, **more: Priority) -> Tenant:
    """Return a tenant whose jobs are all alike."""
    return Tenant(name, weight, prompt_tokens=lambda: prompt, completion_tokens=lambda: length, **more)


def counter(scene: Scene, name: str) -> float:
    return float(scene.raw.hget(keys.shares(MODEL), f"served {name}") or 0)


def end(scene: Scene, claim: Claim, usage: Usage, source: OutputSource = OutputSource.COMPUTED) -> None:
    fields = outcome_fields(Status.SUCCEEDED, output=None, usage=usage, metrics=Metrics(source=source), error=None)
    write = OutputWrite(
        job_id=claim.job_id,
        token=claim.token,
        end=End(Status.SUCCEEDED),
        end_fields=[part for pair in fields.items() for part in pair],
    )
    assert scene.writer.write([write]) == [WRITTEN]


def next_claim(scene: Scene) -> Claim:
    claim = scene.store.claim("worker-1")
    assert claim is not None
    return claim


# --- shares


def test_served_tokens_follow_the_weights_at_every_moment_and_over_two_thousand_jobs(
    workers: SimulatedWorkers,
) -> None:
    tenants = mixed_tenants(random.Random(1))
    weights = sum(tenant.weight for tenant in tenants)
    largest = backlogged(workers, tenants, jobs=2000)
    served = workers.served()
    most_tokens_of_a_batch = 2 * workers.slots * 400
    assert largest <= 2 * max(1.0 * 900, 2.0 * most_tokens_of_a_batch)  # theorem 4.4 of VTC, at the smallest weight
    for each in tenants:
        assert served[each.name] / sum(served.values()) == pytest.approx(each.weight / weights, rel=0.03)


def test_one_that_sends_a_job_a_second_does_not_wait_behind_five_thousand(workers: SimulatedWorkers) -> None:
    waits = waits_of_a_small_tenant(workers, waiting=5000, seconds=60)
    assert len(waits) > 50
    assert statistics.quantiles(waits, n=20)[-1] <= 10 / 1000 + 100 / 50  # what a job takes


def test_with_one_tenant_the_first_job_in_is_the_first_out_whatever_it_costs(scene: Scene) -> None:
    draw = random.Random(2)
    lengths = [draw.randint(1, 500) for _ in range(30)]
    jobs = [scene.store.admit(replace(scene.request(), prompt="x" * length), key_named("me")) for length in lengths]
    claimed = []
    for length in lengths:
        claim = next_claim(scene)
        end(scene, claim, Usage(prompt_tokens=length, completion_tokens=length))
        claimed.append(claim.job_id)
    assert claimed == [job.id for job in jobs]


def test_a_tenant_that_was_away_saves_nothing_up(workers: SimulatedWorkers) -> None:
    busy, back = tenant("busy"), tenant("back")
    for _ in range(40):
        workers.admit(busy)
    workers.claim()
    while workers.ended.total() < 32:
        workers.end_next()
        workers.claim()
    for _ in range(40):
        workers.admit(busy)
        workers.admit(back)
    workers.claim()
    before = workers.ended.copy()
    while workers.ended.total() < before.total() + 24:
        workers.end_next()
        workers.claim()
    assert (workers.ended - before)["back"] == pytest.approx(12, abs=4)


def test_a_queue_that_was_empty_for_a_moment_does_not_bring_back_what_others_saved(scene: Scene) -> None:
    for _ in range(20):
        scene.store.admit(scene.request(), key_named("busy"))
        end(scene, next_claim(scene), Usage(prompt_tokens=100, completion_tokens=100))
    for name in ("late", "busy") * 3:
        scene.store.admit(scene.request(), key_named(name))
    names = []
    for _ in range(6):
        claim = next_claim(scene)
        end(scene, claim, Usage(prompt_tokens=100, completion_tokens=100))
        names.append(claim.tenant)
    assert sorted(names[:4]) == ["busy", "busy", "late", "late"]


def test_members_of_a_group_share_one_share(scene: Scene) -> None:
    for owner in ("ada", "bob"):
        for _ in range(4):
            scene.store.admit(scene.request(), Principal(owner=owner, tenant="lab"))
    for _ in range(4):
        scene.store.admit(scene.request(), key_named("eve"))
    claims = []
    for _ in range(6):
        claims.append(next_claim(scene))
        end(scene, claims[-1], Usage(prompt_tokens=10, completion_tokens=10))
    assert [claim.tenant for claim in claims].count("eve") == 3


# --- what a job costs


def test_an_estimate_is_charged_at_the_claim_and_settled_at_the_end(scene: Scene) -> None:
    principal = Principal(owner="me", tenant="me", weight=2.0)
    request = replace(scene.request(), prompt="x" * 400)
    scene.store.admit(request, principal)
    claim = next_claim(scene)
    assert counter(scene, "me") == (100 + 2 * 100) / 2  # a job of an unknown tenant writes 100 tokens
    end(scene, claim, Usage(prompt_tokens=90, cached_tokens=50, completion_tokens=30))
    assert counter(scene, "me") == (40 + 2 * 30) / 2
    scene.store.admit(request, principal)
    next_claim(scene)
    assert counter(scene, "me") == 50 + (100 + 2 * 30) / 2  # from now on its own mean counts


def test_tokens_weigh_what_the_configuration_says(scene: Scene) -> None:
    sharing = Sharing(prompt_weight=3.0, cached_weight=0.5, completion_weight=1.0)
    scene = replace(scene, sharing=sharing)
    end(scene, scene.running(), Usage(prompt_tokens=90, cached_tokens=50, completion_tokens=30))
    assert counter(scene, "me") == 3 * 40 + 0.5 * 50 + 30


def test_a_response_from_the_cache_costs_nothing(scene: Scene) -> None:
    cached = Usage(prompt_tokens=90, cached_tokens=90, completion_tokens=30)
    end(scene, scene.running(), cached, OutputSource.CACHED)
    assert counter(scene, "me") == 0


def test_texts_to_embed_cost_their_tokens(scene: Scene) -> None:
    scene.store.admit(
        replace(scene.request(), kind=Kind.EMBED, prompt="", texts=("x" * 40, (1, 2, 3))), key_named("me")
    )
    claim = next_claim(scene)
    assert counter(scene, "me") == 13
    end(scene, claim, Usage(prompt_tokens=15))
    assert counter(scene, "me") == 15


def test_a_job_that_changes_workers_is_charged_once(scene: Scene) -> None:
    claim = scene.running()
    once = counter(scene, "me")
    scene.publish(claim, "one ", "two ")
    scene.lose(claim)
    claim = next_claim(scene)
    assert scene.store.hand_back(claim)
    claim = next_claim(scene)
    assert counter(scene, "me") == once
    end(scene, claim, Usage(prompt_tokens=1, completion_tokens=5))
    assert counter(scene, "me") == 11


@pytest.mark.parametrize("ends", ["canceled while it waits", "canceled by the reaper", "canceled as it is handed back"])
def test_of_a_job_that_ends_without_its_worker_the_published_tokens_count(scene: Scene, ends: str) -> None:
    claim = scene.running()
    scene.publish(claim, "one ", "two ", "three ")
    if ends == "canceled while it waits":
        scene.store.hand_back(claim)
        scene.store.cancel(claim.job_id)
    else:
        scene.store.cancel(claim.job_id)
        if ends == "canceled by the reaper":
            scene.lose(claim)
        else:
            scene.store.hand_back(claim)
    assert scene.store.read(claim.job_id).status is Status.CANCELED
    assert counter(scene, "me") == 2 * 3


def test_a_job_that_never_started_costs_nothing(scene: Scene) -> None:
    scene.store.cancel(scene.admit().id)
    scene.admit(expires_in_seconds=0.001)
    time.sleep(0.01)
    assert scene.store.claim("worker-1") is None
    assert counter(scene, "me") == 0


# --- aging


def test_a_low_job_starts_within_twice_the_aging_time_though_high_ones_never_end(scene: Scene) -> None:
    aging_seconds = 1.0
    scene = replace(scene, sharing=Sharing(aging_seconds=aging_seconds))
    low = [scene.store.admit(scene.request(priority=Priority.LOW), key_named(name)) for name in ("me", "you")]
    high = tenant("busy", priority=Priority.HIGH)
    waits: dict[str, float] = {}
    deadline = time.monotonic() + scaled(10)
    while len(waits) < len(low):
        assert time.monotonic() < deadline
        while scene.raw.zcard(keys.waiting(MODEL)) < len(low) - len(waits) + 5:
            scene.store.admit(high.request(), high.principal)
        scene.turn()
        claim = next_claim(scene)
        if claim.tenant != "busy":
            waits[claim.job_id] = claim.started_at - claim.created_at
        end(scene, claim, Usage(prompt_tokens=10, completion_tokens=50))
        time.sleep(0.01)
    assert all(aging_seconds < wait < 2 * aging_seconds for wait in waits.values())


def test_a_risen_job_goes_before_younger_ones_of_its_tenant(scene: Scene) -> None:
    low = scene.admit(priority=Priority.LOW)
    normal = scene.admit()
    scene.raw.zadd(keys.waiting(MODEL), {low.id: 2 * CLASS}, xx=True)
    scene.turn()
    assert scene.queue() == [low.id, normal.id]
    assert scene.store.read(low.id).priority is Priority.LOW


def test_a_turn_in_which_jobs_rise_is_short_though_a_thousand_are_due(scene: Scene) -> None:
    for number in range(1000):
        scene.store.admit(scene.request(priority=Priority.LOW), key_named(f"key-{number % 50}"))
    with scene.raw.pipeline() as pipe:
        for job_id in scene.raw.zrange(keys.waiting(MODEL), 0, -1):
            pipe.zadd(keys.waiting(MODEL), {job_id: 2 * CLASS}, xx=True)
        pipe.execute()
    for turn in range(1, 4):
        scene.turn()
        assert scene.raw.zcount(keys.waiting(MODEL), 2 * CLASS, 2 * CLASS) == 1000 - 300 * turn


# --- many


def test_a_claim_takes_less_than_a_millisecond_with_jobs_of_a_thousand_tenants(scene: Scene) -> None:
    for number in range(3000):
        scene.store.admit(scene.request(), key_named(f"key-{number % 1000}"))
    scene.raw.config_resetstat()
    for _ in range(200):
        next_claim(scene)
    assert scene.raw.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] < scaled(1000)


# --- positions


def three_tenants(draw: random.Random) -> list[Tenant]:
    def between(least: int, most: int) -> Callable[[], int]:
        return lambda: draw.randint(least, most)

    return [
        Tenant("a", 1.0, between(10, 20), between(40, 80)),
        Tenant("b", 2.0, between(10, 100), between(20, 40)),
        Tenant("c", 1.0, between(200, 400), between(100, 200)),
    ]


@pytest.mark.parametrize("jobs_each", [5, 60])
def test_positions_and_starts_are_within_a_fifth_of_what_happens(
    scene: Scene, workers: SimulatedWorkers, monkeypatch: pytest.MonkeyPatch, jobs_each: int
) -> None:
    tenants = three_tenants(random.Random(3))
    backlogged(workers, tenants, jobs=100)
    for _ in range(jobs_each):
        for each in tenants:
            workers.admit(each)
    waiting = [job for each in tenants for job in scene.store.list_jobs(each.name, status=Status.QUEUED, limit=100)]
    positions = QueuePositions(scene.client).read(waiting)
    starts = predicted_starts(scene, workers, waiting, positions, monkeypatch)
    asked_at, started = workers.now, len(workers.started)
    while workers.busy:
        workers.end_next()
        workers.claim()
    order = list(workers.started)[started:]
    for job, position, start in zip(waiting, positions, starts, strict=True):
        assert position is not None
        assert position.jobs_ahead == pytest.approx(order.index(job.id), rel=0.2, abs=3)
        assert start == pytest.approx(workers.started[job.id] - asked_at, rel=0.2, abs=3.0)  # a job takes 3 s


def predicted_starts(
    scene: Scene,
    workers: SimulatedWorkers,
    jobs: list[Job],
    positions: list[QueuePosition | None],
    monkeypatch: pytest.MonkeyPatch,
) -> list[float]:
    """Return in how many seconds of the simulated clock the API says that each job starts."""
    monkeypatch.setattr("app.api.queue_estimate.FRESH_SECONDS", 0.0)
    slots = workers.slots * len(workers.names)
    announce(
        scene.client,
        WorkerInfo(id="w", model=MODEL, family="test", state=WorkerState.READY, slots=slots, running=slots),
    )
    now = time.time()
    starts = QueueEstimate(scene.client, model=MODEL).start_times(jobs, positions)
    return [start - now for start in starts if start is not None]


def test_positions_are_exact_where_jobs_cost_what_is_expected(scene: Scene) -> None:
    draw = random.Random(4)
    for name in ("a", "b", "c"):
        scene.store.admit(scene.request(), key_named(name))
        end(scene, next_claim(scene), Usage(prompt_tokens=1, completion_tokens=draw.randint(5, 20)))
    jobs = [
        scene.store.admit(scene.request(priority=draw.choice(list(Priority))), key_named(draw.choice("abc")))
        for _ in range(40)
    ]
    positions = {job.id: place for job, place in zip(jobs, QueuePositions(scene.client).read(jobs), strict=True)}
    first = list(QueuePositions(scene.client).first(MODEL, 30))
    claimed = [next_claim(scene).job_id for _ in jobs]
    assert first == claimed[:30]
    for number, job_id in enumerate(claimed):
        place = positions[job_id]
        assert place is not None and place.jobs_ahead == number


def test_reading_positions_is_short_with_jobs_of_a_thousand_tenants(scene: Scene) -> None:
    jobs = [scene.store.admit(scene.request(), key_named(f"key-{number % 1000}")) for number in range(2000)]
    scene.raw.config_resetstat()
    positions = QueuePositions(scene.client).read([jobs[0], jobs[1999]])
    assert scene.raw.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] < scaled(2000)
    assert positions[0] is not None and positions[0].jobs_ahead < 1000
    assert positions[1] is not None and positions[1].jobs_ahead == pytest.approx(1500, rel=0.35)
