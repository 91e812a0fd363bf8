"""More jobs than may wait, and thousands of jobs that Redis must delete."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx

from tests.bench.load import run_load
from tests.faults.accounting import Counts, account
from tests.faults.client import ClientView, Way, ask, counting
from tests.faults.load import Load
from tests.faults.scenario import Scenario
from tests.faults.service import SLOTS, Service, running_service
from tests.faults.settlement import ledger
from tests.faults.waiting import until
from tests.waiting import scaled

CLIENTS = 32
MAX_QUEUED = 1000
SURPLUS = 1000
FAST = {"step_seconds": 0.01}
ENDLESS_TOKENS = 100_000

SOAK_JOBS, SOAK_TOKENS = 3000, 2
TTL_SECONDS = 2
AUDIT_ENTRIES = 100  # fewer than the jobs before the first count, so that the stream is full by then
FLAT_BYTES = 200_000  # a kept job takes about 2,000: this is one in thirty of them, and Redis's own buffers


def _more_than_may_wait(folder: Path) -> Counts:
    """While endless jobs hold the slots; then these are canceled, and what waits must succeed."""
    endless = [counting(f"endless {number}", ENDLESS_TOKENS, Way.EVENTS) for number in range(SLOTS)]
    short = [ClientView(counting(f"short {number}", 1, Way.POLL)) for number in range(MAX_QUEUED + SURPLUS)]
    with running_service(folder, jobs={"max_queued": MAX_QUEUED}, model_params=FAST) as service:
        url = service.urls[0]
        with Load(service.urls, endless, over_seconds=0) as load:
            until(lambda: len(service.running_jobs()) == SLOTS, "the endless jobs to run")
            refused = _submit(url, short)
            for job in service.running_jobs():
                httpx.post(f"{url}/jobs/{job.job_id}/cancel", timeout=scaled(30))
        accepted = [one for one in short if one.job_ids]
        _wait(url, accepted)
        return replace(account(service, [*load.views, *accepted]), refused=refused)


def _submit(url: str, jobs: Sequence[ClientView]) -> int:
    """Submit each job once and return how many were refused with 503 and Retry-After.

    Each thread has its own client, as threads that share one have closed each other's connections.
    """

    def submit(http: httpx.Client, view: ClientView) -> bool:
        answer = http.post("/agenerate", json=view.request.body)
        if answer.status_code == 202:
            view.job_ids.add(answer.json()["id"])
        return answer.status_code == 503 and int(answer.headers.get("Retry-After", 0)) > 0

    def submit_all(share: Sequence[ClientView]) -> int:
        with httpx.Client(base_url=url, timeout=scaled(30)) as http:
            return sum(submit(http, view) for view in share)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(submit_all, [jobs[number::CLIENTS] for number in range(CLIENTS)]))


def _wait(url: str, jobs: Sequence[ClientView]) -> None:
    with httpx.Client(timeout=scaled(30)) as http, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda view: ask(http, url, view), jobs))


def _thousands_that_are_soon_forgotten(folder: Path) -> Counts:
    """Run waiting requests and streams; some request a shorter time to live than the server's."""
    sections = {"worker": {"slots": CLIENTS}, "jobs": {"ttl": TTL_SECONDS}, "audit": {"keep": AUDIT_ENTRIES}}
    with running_service(folder, **sections, model_params=FAST) as service:
        _run_and_forget(service, SOAK_JOBS // 10)  # from now on all connections, buffers and scripts exist
        keys, size = _stored(service)
        errors = _run_and_forget(service, SOAK_JOBS)
        keys_after, size_after = _stored(service)
        counted, jobs = ledger(service), SOAK_JOBS + SOAK_JOBS // 10
    return Counts(
        accepted=SOAK_JOBS,
        succeeded=SOAK_JOBS - len(errors),
        unanswered=len(errors),
        unsettled=int((counted.requests, counted.completion_tokens) != (jobs, jobs * SOAK_TOKENS)),
        new_keys=keys_after - keys,
        new_bytes=size_after - size,
        notes=(str(counted), *errors[:5]),
    )


def _run_and_forget(service: Service, jobs: int) -> list[str]:
    """Run so many jobs, every fourth as a stream, wait until none is kept, and return the errors."""
    bodies = [
        {"prompt": "soon forgotten", "params": {"max_tokens": SOAK_TOKENS}, "ttl": 1 + n % 2} for n in range(jobs)
    ]
    streams = bodies[: jobs // 4]
    errors = run_load(service.urls[0], streams, CLIENTS, streamed=True).errors
    errors += run_load(service.urls[0], bodies[len(streams) :], CLIENTS).errors
    until(lambda: not service.job_ids() and _jobs_kept(service) == 0, "the jobs to be forgotten")
    return errors


def _jobs_kept(service: Service) -> int:
    with service.redis() as client:
        return sum(1 for _ in client.scan_iter("llm:job:*", count=1000))


def _stored(service: Service) -> tuple[int, int]:
    """Return the number of keys in Redis and the bytes of their values."""
    with service.redis() as client:
        client.slowlog_reset()  # it keeps the arguments of commands that took long, of which a busy machine has many
        return client.dbsize(), client.info("memory")["used_memory_dataset"]


OVERLOAD = Scenario(
    name="overload",
    fault=f"{MAX_QUEUED + SURPLUS} jobs where {MAX_QUEUED} may wait",
    run=_more_than_may_wait,
    exactly={"accepted": MAX_QUEUED + SLOTS, "succeeded": MAX_QUEUED, "canceled": SLOTS, "refused": SURPLUS},
)
SOAK = Scenario(
    name="soak",
    fault=f"{SOAK_JOBS} jobs kept for {TTL_SECONDS} s at most",
    run=_thousands_that_are_soon_forgotten,
    exactly={"succeeded": SOAK_JOBS},
    at_most=lambda: {"new_keys": 0, "new_bytes": FLAT_BYTES},
)
