"""Jobs that are canceled while no worker lives, and a hundred at once while they run."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.faults.accounting import Counts, account
from tests.faults.load import Load, mixed
from tests.faults.scenario import Scenario
from tests.faults.service import SLOTS, Service, running_service
from tests.faults.waiting import until
from tests.waiting import scaled

JOBS = 100
LONG = (2000, 2001)  # tokens: 40 s and more
AFTERWARDS = (400, 440)  # tokens: 8 s and more; a busy machine has taken 4 s to admit and count a hundred
CLIENTS = 16


def _no_worker_is_up(folder: Path) -> Counts:
    """Cancel jobs that ran when their worker died, and jobs that wait."""
    with running_service(folder) as service:
        with Load(service.urls, mixed(JOBS, tokens=LONG), over_seconds=1) as load:
            until(lambda: len(service.job_ids()) == JOBS, "all jobs to be accepted")
            service.kill_worker("worker-1", range(LONG[0]))
            _cancel(service, service.job_ids())
        service.start_worker("worker-2")
        service.until_ready()
        return account(service, [*load.views, *_fill_slots(service, SLOTS).views])


def _all_run(folder: Path) -> Counts:
    with running_service(folder, worker={"slots": JOBS}) as service:
        with Load(service.urls, mixed(JOBS, tokens=LONG), over_seconds=1) as load:
            until(lambda: len(service.running_jobs()) == JOBS, "all jobs to run")
            _cancel(service, service.job_ids())
        service.until_slots_are_free()
        return account(service, [*load.views, *_fill_slots(service, JOBS).views])


def _cancel(service: Service, job_ids: Iterable[str]) -> None:
    with httpx.Client(base_url=service.urls[0], timeout=scaled(30)) as http, ThreadPoolExecutor(CLIENTS) as pool:
        for answer in pool.map(lambda job_id: http.post(f"/jobs/{job_id}/cancel"), job_ids):
            assert answer.status_code in (200, 202), answer.text


def _fill_slots(service: Service, slots: int) -> Load:
    """Run as many jobs as there are slots at once, to show that every slot is free."""
    with Load(service.urls, mixed(slots, name="afterwards", tokens=AFTERWARDS), over_seconds=0) as load:
        until(lambda: len(service.running_jobs()) == slots, f"{slots} jobs to run at once")
    return load


CANCELED_WITHOUT_WORKER = Scenario(
    name="canceled-without-worker",
    fault=f"cancel {JOBS} jobs, no worker up",
    run=_no_worker_is_up,
    exactly={"canceled": JOBS, "succeeded": SLOTS},
)
CANCEL_STORM = Scenario(
    name="cancel-storm",
    fault=f"cancel {JOBS} running jobs at once",
    run=_all_run,
    exactly={"canceled": JOBS, "succeeded": JOBS},
)
