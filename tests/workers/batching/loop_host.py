"""A host for batch loops without a worker, and sequences without a claim."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

from app.jobs.job import JobRequest, Kind
from tests.waiting import scaled
from workers.batching.sequence import BatchSequence, ResumeState
from workers.engines.base import Prompt
from workers.engines.runner import Outcome, Report, RunnerJob


class Host:
    """Passes reports to a function. passed: ids of jobs that have passed their trial."""

    def __init__(self, report: Callable[[Sequence[Report]], None]) -> None:
        self.report = report
        self.passed: list[str] = []

    def fail(self, job: RunnerJob, error: Exception) -> None:
        raise error

    def answer_from_cache(self, job: RunnerJob, prompt_tokens: Sequence[int]) -> bool:
        return False

    def pass_trial(self, job: RunnerJob) -> None:
        self.passed.append(job.id)


def make_sequence(
    name: str,
    prompt: Prompt,
    *,
    tenant: str = "",
    scope: str = "",
    timeout_seconds: float = 600.0,
    earlier: ResumeState | None = None,
    request: JobRequest = JobRequest(kind=Kind.GENERATE),  # noqa: B008 - frozen
) -> BatchSequence:
    job = RunnerJob(name, request, tenant=tenant, scope=scope, timeout_seconds=timeout_seconds)
    job.run = sequence = BatchSequence(job, prompt, earlier=earlier)
    return sequence


class Collected:
    """The published output, by sequence."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = defaultdict(str)
        self.outcomes: dict[str, list[Outcome]] = defaultdict(list)
        self._changed = threading.Condition()

    def publish(self, updates: Sequence[Report]) -> None:
        with self._changed:
            for job, delta, outcome in updates:
                self.texts[job.id] += "" if delta is None else delta.text
                if outcome is not None:
                    self.outcomes[job.id].append(outcome)
            self._changed.notify_all()

    def wait_for(self, *sequence_ids: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: all(i in self.outcomes for i in sequence_ids), timeout=scaled(10))
