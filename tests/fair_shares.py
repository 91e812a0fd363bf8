"""Tenants that always have jobs waiting, for the tests of fair shares and their benchmark."""

from collections.abc import Callable, Sequence
from random import Random

from tests.simulated_workers import SimulatedWorkers, Tenant

WAITING = 12  # jobs of each tenant that always wait


def mixed_tenants(draw: Random) -> list[Tenant]:
    """Return four tenants with weights 1, 1, 2, 4 and jobs of very different lengths."""

    def between(least: int, most: int) -> Callable[[], int]:
        return lambda: draw.randint(least, most)

    return [
        Tenant("short", 1.0, between(5, 50), between(5, 20)),
        Tenant("long", 1.0, between(5, 50), between(200, 400)),
        Tenant("mixed", 2.0, between(5, 50), between(5, 400)),
        Tenant("prompts", 4.0, between(300, 900), between(1, 5)),
    ]


def backlogged(workers: SimulatedWorkers, tenants: Sequence[Tenant], jobs: int) -> float:
    """Run jobs of tenants that always have some waiting. Returns the largest difference of service per weight ever."""
    by_name = {tenant.name: tenant for tenant in tenants}
    for tenant in tenants:
        for _ in range(WAITING):
            workers.admit(tenant)
    largest = 0.0
    workers.claim()
    while workers.ended.total() < jobs:
        served = workers.served()
        per_weight = [served.get(tenant.name, 0.0) / tenant.weight for tenant in tenants]
        largest = max(largest, max(per_weight) - min(per_weight))
        ended = workers.end_next()
        workers.claim()
        workers.admit(by_name[ended.claim.tenant])
    return largest


def waits_of_a_small_tenant(workers: SimulatedWorkers, *, waiting: int, seconds: int) -> list[float]:
    """Let a tenant with many waiting jobs of 2 s meet one that sends such a job a second.

    Returns for each of the latter's jobs how long after the next slot was free it started.
    """
    large, small = _alike("large", 100), _alike("small", 100)
    for _ in range(waiting):
        workers.admit(large)
    workers.claim()
    free_at: dict[str, float] = {}
    while workers.now < seconds:
        while workers.next_end > len(free_at):
            workers.now = float(len(free_at))
            free_at[workers.admit(small).id] = workers.next_end
        workers.end_next()
        workers.claim()
    return [workers.started.get(job_id, workers.now) - at for job_id, at in free_at.items()]


def _alike(name: str, length: int) -> Tenant:
    return Tenant(name, 1.0, prompt_tokens=lambda: 10, completion_tokens=lambda: length)
