"""Fair shares: what each of four tenants gets, how long a small one waits beside a large one, and what a claim costs.

Redis and the scripts are real, workers' engines are simulated: a token takes the same time whatever else runs.
"""

import random
import statistics
import tempfile
from pathlib import Path

import redis

from app.jobs import keys
from app.jobs.job import JobRequest, Kind
from app.jobs.output_writer import OutputWriter
from app.jobs.principal import Principal
from app.jobs.redis_client import connect
from app.jobs.store import JobStore
from tests.fair_shares import backlogged, mixed_tenants, waits_of_a_small_tenant
from tests.simulated_workers import SimulatedWorkers
from tests.valkey import running_valkey

MODEL = "m"
JOBS = 2000
WAITING, TENANTS, CLAIMS = 100_000, 1000, 1000


def measure() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_valkey(Path(folder)) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as raw,
    ):
        _shares(server.url, raw)
        _small_beside_large(server.url, raw)
        _claims(server.url, raw)


def _shares(url: str, raw: "redis.Redis") -> None:
    workers, tenants = _workers(url, raw), mixed_tenants(random.Random(1))
    largest = backlogged(workers, tenants, JOBS)
    served, weights = workers.served(), sum(tenant.weight for tenant in tenants)
    total = sum(served.values())
    print(f"\nfair shares: 2 workers of 4 slots, {JOBS} jobs, every tenant always has some waiting")
    print("| tenant | weight | jobs | weighted tokens | share | by weight |\n|---|---|---|---|---|---|")
    for tenant in tenants:
        share, due = served[tenant.name] / total, tenant.weight / weights
        print(
            f"| {tenant.name} | {tenant.weight:.0f} | {workers.ended[tenant.name]} | {served[tenant.name]:.0f} "
            f"| {share:.2%} | {due:.2%} |"
        )
    print(f" largest difference of weighted tokens per weight at any moment: {largest:.0f}")


def _small_beside_large(url: str, raw: "redis.Redis") -> None:
    waits = sorted(waits_of_a_small_tenant(_workers(url, raw), waiting=5000, seconds=120))
    print("\na job a second beside a tenant with 5,000 waiting jobs of 2 s, seconds after the next slot was free:")
    print(f" p50 {statistics.median(waits):.2f}, p95 {waits[int(0.95 * len(waits))]:.2f}, max {waits[-1]:.2f}")


def _claims(url: str, raw: "redis.Redis") -> None:
    workers = _workers(url, raw)
    request = JobRequest(kind=Kind.GENERATE, prompt="x" * 100)
    principals = [Principal(owner=f"key-{number}", tenant=f"key-{number}") for number in range(TENANTS)]
    print("\ntime in Redis, microseconds:\n| waiting jobs | tenants | admission | claim |\n|---|---|---|---|")
    for count, tenants in ((1, 1), (1000, 1), (WAITING, 1), (WAITING, TENANTS)):
        raw.flushall()
        raw.set(keys.alive(MODEL), "any-worker")
        workers.store.admit(request, principals[0])  # loads the scripts
        workers.store.claim("worker-1")
        raw.config_resetstat()
        for number in range(count):
            workers.store.admit(request, principals[number % tenants])
        admission = _microseconds(raw)
        raw.config_resetstat()
        for _ in range(min(CLAIMS, count)):
            workers.store.claim("worker-1")
        print(f"| {count:,} | {tenants:,} | {admission:.0f} | {_microseconds(raw):.0f} |")


def _microseconds(raw: "redis.Redis") -> float:
    return float(raw.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def _workers(url: str, raw: "redis.Redis") -> SimulatedWorkers:
    raw.flushall()
    raw.set(keys.alive(MODEL), "any-worker")
    client = connect(url)
    store = JobStore(client, model=MODEL, ttl_seconds=600, max_queued=-1)
    return SimulatedWorkers(raw, store, OutputWriter(client, model=MODEL, ttl_seconds=600), slots=4)
