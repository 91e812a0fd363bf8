"""Where waiting jobs stand in line, as `lua/positions.lua` predicts it."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs.job import Job, Status
from app.jobs.redis_client import RedisClient, script
from app.jobs.sharing import DEFAULT_SHARING, Sharing


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """jobs_ahead: jobs of the same model that start before this one. work_ahead: their time, in jobs of mean time."""

    jobs_ahead: int
    work_ahead: float


class QueuePositions:
    """Predicts positions: exact as long as few jobs wait and cost what is expected, else an estimate."""

    def __init__(self, client: RedisClient, sharing: Sharing = DEFAULT_SHARING) -> None:
        self._positions = script(client, "positions")
        self._first_jobs = script(client, "first_jobs")
        self._sharing = sharing

    def read(self, jobs: Sequence[Job]) -> list[QueuePosition | None]:
        """Return the position of each job, None once it has started; one round trip per model with queued jobs."""
        ids: dict[str, list[str]] = {}
        for job in jobs:
            if job.status is Status.QUEUED:
                ids.setdefault(job.model, []).append(job.id)
        positions: dict[str, QueuePosition] = {}
        for model, of_model in ids.items():
            results = self._positions(keys=[], args=[self._sharing.order_of(model), *of_model])
            for job_id, (jobs_ahead, work_ahead) in zip(of_model, results, strict=True):
                if jobs_ahead >= 0:
                    positions[job_id] = QueuePosition(jobs_ahead, float(work_ahead))
        return [positions.get(job.id) for job in jobs]

    def first(self, model: str, limit: int) -> dict[str, QueuePosition]:
        """Return the jobs that start first, by their ids and in their order."""
        results = self._first_jobs(keys=[], args=[self._sharing.order_of(model), limit])
        return {job_id: QueuePosition(number, float(work)) for number, (job_id, work) in enumerate(results)}
