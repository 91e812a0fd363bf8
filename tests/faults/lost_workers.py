"""Workers that are killed, suspended or terminated, and one job that kills each worker that runs it."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGCONT

from app.jobs.store import LEASE_SECONDS
from tests.faults.accounting import Counts, account, with_takeover
from tests.faults.client import ClientRequest, ClientView, Way, counting
from tests.faults.load import Load, mixed
from tests.faults.scenario import Scenario
from tests.faults.service import Hostages, Service, running_service
from tests.faults.waiting import until
from tests.waiting import scaled

TAKEOVER_SECONDS = 5  # after the end of a lease: for the reaper's turn and a free slot
PAUSE_SECONDS = 30
PAUSE_AND_MORE = (1500, 1501)  # tokens: 30 s
MAX_ATTEMPTS = 3  # the default of jobs.max_attempts
DRAIN_SECONDS = 1  # shorter than the rest of a stream in the middle of 90 tokens: some jobs are handed back


def _one_of_two_is_killed(folder: Path) -> Counts:
    with running_service(folder, workers=2) as service:
        with Load(service.urls, mixed(120)) as load:
            hostages = service.kill_worker("worker-1")
        return with_takeover(account(service, load.views), service, hostages)


def _the_only_one_is_killed(folder: Path) -> Counts:
    with running_service(folder) as service:
        with Load(service.urls, mixed(100)) as load:
            hostages = service.kill_worker("worker-1")
            service.start_worker("worker-2")
        return with_takeover(account(service, load.views), service, hostages)


def _one_of_two_stands_still(folder: Path) -> Counts:
    """Some of its jobs are so long that they run on another worker when it wakes up."""
    long, short = mixed(3, tokens=PAUSE_AND_MORE, name="long"), mixed(120)
    with running_service(folder, worker={"slots": 6}) as service, Load(service.urls, long, over_seconds=0) as before:
        until(lambda: len(service.running_jobs()) == len(long), "the long jobs to run")
        service.start_worker("worker-2")
        service.until_ready()
        with Load(service.urls, short) as load:
            hostages = _stand_still(service, "worker-1")
        before.wait()
        return _late_writes_refused(service, [*before.views, *load.views], hostages)


def _the_only_one_stands_still(folder: Path) -> Counts:
    """When it wakes up, its own jobs wait for it in the queue."""
    with running_service(folder) as service:
        with Load(service.urls, mixed(100)) as load:
            hostages = _stand_still(service, "worker-1")
        counts = _late_writes_refused(service, load.views, hostages)
        return replace(counts, takeover_seconds=round(counts.takeover_seconds - PAUSE_SECONDS, 1))


def _stand_still(service: Service, worker: str) -> Hostages:
    hostages = service.pause_worker(worker)
    time.sleep(PAUSE_SECONDS)
    service.send(worker, SIGCONT)
    return hostages


def _late_writes_refused(service: Service, view: Iterable[ClientView], hostages: Hostages) -> Counts:
    service.until_slots_are_free()
    fenced = service.stack.log("worker-1").count("belongs to another worker now")
    return replace(with_takeover(account(service, view), service, hostages), fenced=fenced)


def _everything_is_restarted(folder: Path) -> Counts:
    worker = {"slots": 4, "drain_seconds": DRAIN_SECONDS}
    with running_service(folder, workers=2, worker=worker) as service:
        with Load(service.urls, mixed(100, tokens=(90, 130)), over_seconds=10) as load:
            for leaving, coming in (("worker-1", "worker-3"), ("worker-2", "worker-4")):
                service.start_worker(coming)
                service.until_ready()
                service.until_busy(leaving)
                service.stop(leaving)
            service.stop("api-1")
            service.start_api("api-1")
        return account(service, load.views)


def _one_job_is_poison(folder: Path, poison: ClientRequest, workers: int) -> Counts:
    """Run a job that kills its worker among 20 others, which may run in the same worker."""
    healthy = mixed(20, tokens=(150, 250))
    requests = [*healthy[:10], poison, *healthy[10:]]
    slots = len(requests) // workers + 1
    with running_service(folder, workers=workers, worker={"slots": slots}) as service:
        with _restarting_the_dead(service) as deaths, Load(service.urls, requests, over_seconds=1) as load:
            pass
        return replace(account(service, load.views), deaths=len(deaths))


@contextmanager
def _restarting_the_dead(service: Service) -> Iterator[list[str]]:
    """Restart dead workers, as `make run` does, and yield their names, one for each death."""
    over = threading.Event()
    deaths: list[str] = []

    def watch() -> None:
        while not over.wait(0.2):
            for name in service.dead_workers():
                deaths.append(name)
                service.start_worker(name)

    keeper = threading.Thread(target=watch)
    keeper.start()
    try:
        yield deaths
    finally:
        over.set()
        keeper.join()


def taken_over() -> dict[str, float]:
    """Return the limit of the time from the loss of a worker to the next claim of its jobs."""
    return {"takeover_seconds": LEASE_SECONDS + scaled(TAKEOVER_SECONDS)}


ONE_OF_TWO_KILLED = Scenario(
    name="worker-of-two-killed",
    fault="kill -9 a worker of two",
    run=_one_of_two_is_killed,
    exactly={"accepted": 120, "succeeded": 120},
    at_least={"hostages": 2, "continued": 1},
    at_most=taken_over,
)
ONLY_ONE_KILLED = Scenario(
    name="only-worker-killed",
    fault="kill -9 the only worker, start another",
    run=_the_only_one_is_killed,
    exactly={"accepted": 100, "succeeded": 100},
    at_least={"hostages": 2, "continued": 1},
    at_most=taken_over,
)
ONE_OF_TWO_STANDS_STILL = Scenario(
    name="worker-of-two-stands-still",
    fault=f"SIGSTOP a worker of two for {PAUSE_SECONDS} s, SIGCONT",
    run=_one_of_two_stands_still,
    exactly={"accepted": 123, "succeeded": 123},
    at_least={"hostages": 2, "continued": 1, "fenced": 1},
    at_most=taken_over,
)
ONLY_ONE_STANDS_STILL = Scenario(
    name="only-worker-stands-still",
    fault="the same with the only worker",
    run=_the_only_one_stands_still,
    exactly={"accepted": 100, "succeeded": 100},
    at_least={"hostages": 2, "fenced": 1},
    at_most=taken_over,
)
ALL_RESTARTED = Scenario(
    name="all-restarted",
    fault="SIGTERM to all in turn, new ones started",
    run=_everything_is_restarted,
    exactly={"accepted": 100, "succeeded": 100},
    at_least={"continued": 1},
)
POISON = Scenario(
    name="poison",
    fault="a job that kills the only worker at once",
    run=lambda folder: _one_job_is_poison(folder, counting("poison", 100, Way.GENERATE), 1),
    exactly={"accepted": 21, "succeeded": 20, "worker_lost": 1, "deaths": MAX_ATTEMPTS},
)
LATE_POISON = Scenario(
    name="late-poison",
    fault="a job that kills one of two at its 60th token",
    run=lambda folder: _one_job_is_poison(folder, counting("poison after 60", 100, Way.POLL), 2),
    exactly={"accepted": 21, "succeeded": 20, "worker_lost": 1, "deaths": MAX_ATTEMPTS},
)
