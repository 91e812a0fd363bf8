"""The service under fault: its processes, its own Valkey, and ways to disturb them."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from app.jobs import keys
from app.jobs.redis_client import connect
from app.jobs.worker_registry import WorkerInfo, WorkerState, read_workers
from tests.faults.waiting import until
from tests.stack import Stack, engine_config, free_port
from tests.valkey import Valkey, running_valkey
from tests.waiting import scaled

ENGINE = "counting:Counting"
SLOTS = 4
STEP_SECONDS = 0.02


IN_THE_MIDDLE = range(5, 25)  # published tokens: enough to continue from, and far from the end


@dataclass(frozen=True, slots=True)
class Running:
    """A running job. is_followed: a client reads its stream. published: the number of its published tokens."""

    job_id: str
    attempt: int
    is_followed: bool
    published: int


@dataclass(frozen=True, slots=True)
class Hostages:
    """The jobs that a worker ran when it was lost. lost_at: Unix seconds."""

    lost_at: float
    jobs: list[Running]


@dataclass(slots=True)
class Service:
    """A stack of tests, whose APIs are named `api`, `api-2`, ... and its workers `worker-1`, `worker-2`, ..."""

    stack: Stack
    valkey: Valkey
    model: str
    api_ports: dict[str, int] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.api_ports.values()]

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.valkey.url, decode_responses=True)

    def start_api(self, name: str) -> None:
        port = self.api_ports.setdefault(name, free_port())
        self.stack.start_api(name, port)

    def start_worker(self, name: str) -> None:
        self.stack.start_worker(name)

    def until_ready(self) -> None:
        """Wait until every started process serves."""
        for name in self.api_ports:
            until(lambda name=name: self._answers(name), f"{name}: {self.stack.log(name)}")  # type: ignore[misc]
        for name in self._workers():
            until(lambda name=name: self.info(name).state is WorkerState.READY, name)  # type: ignore[misc]

    def info(self, worker: str) -> WorkerInfo:
        """Return what a worker announces about itself."""
        pid = str(self.stack.processes[worker].pid)
        client = connect(self.valkey.url)
        try:
            infos = [info for info in read_workers(client) if info.id.rsplit("-", 2)[1] == pid]
        finally:
            client.close()
        return infos[0] if infos else WorkerInfo(id="", model=self.model, family="", state=WorkerState.LOADING)

    def running_jobs(self, worker_id: str | None = None) -> list[Running]:
        """Return the jobs that run on one worker or on any.

        They are read in one step, as some would end between separate reads.
        """
        names = ("status", "worker", "attempt", "followed", "published")
        with self.redis() as client:
            ids = client.zrange(keys.running(self.model), 0, -1)
            pipeline = client.pipeline(transaction=False)
            for job_id in ids:
                pipeline.hmget(keys.job(job_id), names)
            records = [(job_id, *values) for job_id, values in zip(ids, pipeline.execute(), strict=True)]
        return [
            Running(job_id, int(attempt), followed == "1", int(published or 0))
            for job_id, status, worker, attempt, followed, published in records
            if status == "processing" and worker_id in (None, worker)
        ]

    def job_ids(self) -> list[str]:
        """Return the ids of all accepted jobs that are kept."""
        with self.redis() as client:
            return list(client.zrange(keys.jobs_of("anonymous"), 0, -1))

    def until_busy(self, name: str, published: range = IN_THE_MIDDLE) -> None:
        """Wait until all slots of a worker are taken, one of them by a stream with so many published tokens."""
        worker_id = self.info(name).id

        def busy() -> bool:
            jobs = self.running_jobs(worker_id)
            streams = [job for job in jobs if job.is_followed and job.published in published]
            return len(jobs) >= SLOTS and bool(streams)

        until(busy, f"{name} to run {SLOTS} jobs, streams among them")

    def pause_worker(self, name: str) -> Hostages:
        """Send SIGSTOP to a busy worker."""
        return self._lose(name, signal.SIGSTOP)

    def kill_worker(self, name: str, published: range = IN_THE_MIDDLE) -> Hostages:
        """Send SIGKILL to a busy worker."""
        hostages = self._lose(name, signal.SIGKILL, published)
        self.stack.processes.pop(name).wait()
        return hostages

    def send(self, name: str, number: signal.Signals) -> None:
        self.stack.processes[name].send_signal(number)

    def stop(self, name: str, *, seconds: float = 60.0) -> None:
        """Send SIGTERM and wait until the process has ended."""
        process = self.stack.processes.pop(name)
        process.terminate()
        process.wait(scaled(seconds))

    def kill_api(self, name: str) -> None:
        """Send SIGKILL to gunicorn and all its workers at once."""
        process = self.stack.processes.pop(name)
        for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            member.kill()
        process.wait()

    def all_pids(self) -> set[int]:
        """Return the ids of all processes that should run, gunicorn's workers included."""
        own = [psutil.Process(process.pid) for process in self.stack.processes.values()]
        return {member.pid for one in own for member in (one, *one.children(recursive=True))}

    def dead_workers(self) -> list[str]:
        return [name for name in self._workers() if self.stack.processes[name].poll() is not None]

    def ended_processes(self) -> int:
        return sum(process.poll() is not None for process in self.stack.processes.values())

    def until_slots_are_free(self) -> None:
        """Wait until every worker announces that no job runs and that no cell is taken."""

        def free() -> bool:
            infos = [self.info(name) for name in self._workers()]
            return all((info.running, info.used_cells) == (0, 0) for info in infos)

        until(free, "free slots", seconds=20)

    def _lose(self, name: str, number: signal.Signals, published: range = IN_THE_MIDDLE) -> Hostages:
        worker_id = self.info(name).id
        self.until_busy(name, published)
        self.send(name, number)
        lost_at = time.time()
        return Hostages(lost_at, self.running_jobs(worker_id))

    def _answers(self, api: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.api_ports[api]}/healthz", timeout=scaled(5)).status_code == 200
        except httpx.TransportError:
            return False

    def _workers(self) -> list[str]:
        return [name for name in self.stack.processes if name not in self.api_ports]


@contextmanager
def running_service(
    folder: Path, *, workers: int = 1, apis: int = 1, config: dict[str, Any] | None = None, **sections: Any
) -> Iterator[Service]:
    """Run so many workers and APIs with the counting engine (or with `config`), ready to serve."""
    defaults = {"worker": {"slots": SLOTS}, "model_params": {"step_seconds": STEP_SECONDS}}
    config = config or engine_config(ENGINE, **{**defaults, **sections})
    folder.mkdir(parents=True, exist_ok=True)
    with running_valkey(folder / "valkey") as valkey:
        service = Service(Stack(folder, valkey.url, config), valkey, model=config["model_name"])
        try:
            for number in range(workers):
                service.start_worker(f"worker-{number + 1}")
            for number in range(apis):
                service.start_api(f"api-{number + 1}")
            service.until_ready()
            yield service
        finally:
            service.stack.stop()
