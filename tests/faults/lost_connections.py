"""An API that is killed while clients wait, and outages of Redis of four kinds."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import httpx

from tests.faults.accounting import Counts, account
from tests.faults.load import Load, mixed
from tests.faults.scenario import Scenario
from tests.faults.service import Service, running_service
from tests.waiting import scaled

GONE_SECONDS = 2
PAUSE_SECONDS = 10
JOBS = 100
PROCESSES = 4  # two workers and two API processes, each with connections of both kinds


def _an_api_is_killed(folder: Path) -> Counts:
    """Kill one of two API services, each of two processes, and start it again."""
    with running_service(folder, workers=2, apis=2) as service:
        with Load(service.urls, mixed(JOBS)) as load:
            load.until_streaming(4)
            service.kill_api("api-1")
            time.sleep(GONE_SECONDS)
            service.start_api("api-1")
        counts = account(service, load.views)
        unread = [job_id for job_id in service.job_ids() if not _can_be_fetched(service.urls[0], job_id)]
        return replace(counts, lost=counts.lost + len(unread))


def _can_be_fetched(url: str, job_id: str) -> bool:
    answer = httpx.get(f"{url}/jobs/{job_id}", timeout=scaled(30))
    return answer.status_code == 200 and answer.json()["completed_at"] is not None


def _redis_goes_away(folder: Path, inject: Callable[[Service], None]) -> Counts:
    with running_service(folder, workers=2) as service:
        processes = service.all_pids()
        with Load(service.urls, mixed(JOBS), over_seconds=8) as load:
            load.until_streaming(4)
            inject(service)
        return replace(account(service, load.views), ended_processes=len(processes - service.all_pids()))


def _kill(service: Service) -> None:
    service.valkey.kill()
    time.sleep(GONE_SECONDS)
    service.valkey.start()


def _kill_connections(service: Service) -> None:
    """Kill several times, as closed connections are opened again."""
    killed = Counter[str]()
    with service.redis() as client:
        for _ in range(5):
            for kind in ("normal", "pubsub"):
                killed[kind] += client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(1)
    assert min(killed.values()) > PROCESSES, killed


def _pause_clients(service: Service) -> None:
    with service.redis() as client:
        client.execute_command("CLIENT", "PAUSE", PAUSE_SECONDS * 1000, "ALL")
    time.sleep(PAUSE_SECONDS)


def _stop_and_continue(service: Service) -> None:
    assert service.valkey.process is not None
    service.valkey.process.send_signal(SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    service.valkey.process.send_signal(SIGCONT)


def _redis(name: str, fault: str, inject: Callable[[Service], None]) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        run=partial(_redis_goes_away, inject=inject),
        exactly={"accepted": JOBS, "succeeded": JOBS},
    )


API_KILLED = Scenario(
    name="api-killed",
    fault="kill -9 an API, start it again",
    run=_an_api_is_killed,
    exactly={"accepted": JOBS, "succeeded": JOBS},
    at_least={"resumed": 1},
)
REDIS_KILLED = _redis("redis-killed", "kill -9 Redis, start it again", _kill)
CONNECTIONS_KILLED = _redis("connections-killed", "CLIENT KILL of every connection, 5 times", _kill_connections)
CLIENTS_PAUSED = _redis("clients-paused", f"CLIENT PAUSE of {PAUSE_SECONDS} s", _pause_clients)
REDIS_STOPPED = _redis("redis-stopped", f"SIGSTOP Redis for {PAUSE_SECONDS} s, SIGCONT", _stop_and_continue)
