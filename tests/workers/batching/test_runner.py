"""What one tenant's requests cost before they run, and what that costs the others."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app.config.settings import WorkerConfig
from app.errors import GrammarTooCostly
from app.jobs.job import Chat, JobRequest, Kind
from tests.waiting import scaled, until
from tests.workers.batching.loop_host import Collected, Host
from tests.workers.batching.scripted_engine import ScriptedEngine, prompt
from workers.batching.costly_grammars import MAX_COSTLY
from workers.batching.prepare_threads import THREADS_OF_A_TENANT
from workers.batching.runner import BatchRunner
from workers.engines.base import Prompt
from workers.engines.runner import RunnerJob


class CostlyEngine(ScriptedEngine):
    """A grammar takes until the gate opens, and then turns out to be too costly, except "good"."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.tried: list[str] = []

    def prepare(self, request: JobRequest) -> Prompt:
        grammar = request.params.get("grammar")
        if grammar is not None and grammar != "good":
            self.tried.append(grammar)
            assert self.gate.wait(scaled(10))
            raise GrammarTooCostly("too slow", errors={"params.grammar": ["too slow"]})
        return prompt("hi")


class FailureHost(Host):
    def __init__(self, collected: Collected) -> None:
        super().__init__(collected.publish)
        self.failures: dict[str, Exception] = {}

    def fail(self, job: RunnerJob, error: Exception) -> None:
        self.failures[job.id] = error


@pytest.fixture
def engine() -> CostlyEngine:
    return CostlyEngine()


@pytest.fixture
def host(collected: Collected) -> FailureHost:
    return FailureHost(collected)


@pytest.fixture
def runner(engine: CostlyEngine, host: FailureHost) -> Iterator[BatchRunner]:
    runner = BatchRunner(engine, WorkerConfig(), host)
    runner.start()
    yield runner
    engine.gate.set()
    runner.close()


def job(name: str, tenant: str, **request: Any) -> RunnerJob:
    return RunnerJob(name, JobRequest(kind=Kind.GENERATE, **request), tenant=tenant)


def test_another_tenants_jobs_are_prepared_while_costly_grammars_are_tried(
    runner: BatchRunner, engine: CostlyEngine, host: FailureHost, collected: Collected
) -> None:
    for number in range(24):
        runner.submit(job(f"costly {number}", "greedy", params={"grammar": str(number)}))
    until(lambda: len(engine.tried) == THREADS_OF_A_TENANT)
    runner.submit(job("chat", "other", chat=Chat(messages=[])))
    runner.submit(job("schema", "other", params={"grammar": "good"}))
    collected.wait_for("chat", "schema")
    assert not host.failures
    engine.gate.set()
    until(lambda: len(host.failures) == 24)
    assert len(engine.tried) < MAX_COSTLY + THREADS_OF_A_TENANT
    assert all(isinstance(error, GrammarTooCostly) for error in host.failures.values())


def test_a_job_that_was_canceled_while_it_waited_is_not_prepared(
    runner: BatchRunner, engine: CostlyEngine, host: FailureHost
) -> None:
    jobs = [job(f"costly {number}", "greedy", params={"grammar": str(number)}) for number in range(6)]
    for one in jobs:
        runner.submit(one)
    until(lambda: len(engine.tried) == THREADS_OF_A_TENANT)
    for one in jobs[THREADS_OF_A_TENANT:]:
        one.cancel_requested = True
    engine.gate.set()
    until(lambda: len(host.failures) == THREADS_OF_A_TENANT)
    assert len(engine.tried) == THREADS_OF_A_TENANT
