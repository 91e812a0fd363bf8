"""What one worker has counted since it began."""

from dataclasses import dataclass

from app.jobs.worker_registry import WorkerInfo
from workers.engines.runner_counts import Distribution, RunnerCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """claims: jobs that it took; takeovers: of these, those that another attempt had begun. trials: jobs that ran in
    quarantine. fenced_writes: rejected, as another worker had the job. round_trips: seconds of each write to Redis.
    """

    info: WorkerInfo
    counts: RunnerCounts | None
    claims: int
    takeovers: int
    trials: int
    fenced_writes: int
    round_trips: Distribution
