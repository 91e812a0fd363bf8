"""A host for batch loops without a worker, and sequences without a claim."""

from collections.abc import Callable, Sequence

from app.jobs.job import JobRequest, Kind
from workers.batching.sequence import BatchSequence, ResumeState
from workers.engines.base import Prompt
from workers.engines.runner import Report, RunnerJob


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
    name: str, prompt: Prompt, *, timeout_seconds: float = 600.0, earlier: ResumeState | None = None
) -> BatchSequence:
    job = RunnerJob(name, JobRequest(kind=Kind.GENERATE), timeout_seconds=timeout_seconds)
    job.run = sequence = BatchSequence(job, prompt, earlier=earlier)
    return sequence
