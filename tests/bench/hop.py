"""The cost of the path there and back: HTTP, Redis, Celery, Redis, HTTP, with an engine that answers at once."""

import asyncio
import statistics
import time
from collections import Counter

from tests.bench.load import Connection, percentile, run_load

WAITERS = 1000


def measure(url: str, rounds: int) -> None:
    """Print latency at one client and the rate at 32."""
    bodies = [{"prompt": "hello"}]
    run_load(url, bodies * 200, 8)  # warm
    print(f"\nhop cost, engine that answers at once, median of {rounds} rounds [min-max]")
    single, rates = [], []
    for _ in range(rounds):
        single.append(run_load(url, bodies * 300, 1))
        rates.append(run_load(url, bodies * 2000, 32))
    p50 = [percentile(result.latencies, 0.5) * 1e3 for result in single]
    p99 = [percentile(result.latencies, 0.99) * 1e3 for result in single]
    per_second = [result.requests_per_second for result in rates]
    errors = [error for result in (*single, *rates) for error in result.errors]
    print(f"  1 client: p50 {statistics.median(p50):.2f} ms [{min(p50):.2f}-{max(p50):.2f}], p99 {max(p99):.1f} ms")
    print(f" 32 clients: {statistics.median(per_second):.0f} requests/s [{min(per_second):.0f}-{max(per_second):.0f}]")
    print(f" errors: {len(errors)} {errors[:1]}")


def measure_waiters(url: str) -> None:
    """1,000 requests wait in one API process while /healthz is polled."""
    result, health = asyncio.run(_waiters(url))
    print(f"\n{WAITERS} concurrent /generate in one API process: {len(result) - result.count('')} errors")
    for error, count in Counter(filter(None, result)).most_common(3):
        print(f"  {count} x {error}")
    print(
        f" /healthz meanwhile: p50 {percentile(health, 0.5) * 1e3:.1f} ms, p99 {percentile(health, 0.99) * 1e3:.1f} ms,"
        f" max {max(health) * 1e3:.1f} ms ({len(health)} asked)"
    )


async def _waiters(url: str) -> tuple[list[str], list[float]]:
    health: list[float] = []
    probe = await Connection.open(url)

    async def wait() -> str:
        try:
            connection = await Connection.open(url)
            status, text = await connection.request("POST", "/generate", {"prompt": "hello"})
            connection.close()
        except (OSError, EOFError) as error:
            return repr(error)
        return "" if status == 200 else f"{status} {text[:200]!r}"

    async def poll() -> None:
        while True:
            started = time.perf_counter()
            await probe.request("GET", "/healthz")
            health.append(time.perf_counter() - started)
            await asyncio.sleep(0.01)

    polling = asyncio.create_task(poll())
    answers = await asyncio.gather(*(wait() for _ in range(WAITERS)))
    polling.cancel()
    probe.close()
    return list(answers), health
