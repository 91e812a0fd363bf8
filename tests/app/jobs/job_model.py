"""The promises about jobs as a model in plain Python: without Redis, and time passes only in steps of the test."""

from dataclasses import asdict, dataclass, field

from app.jobs.job import JobRequest, Status, Usage
from app.ledger.usage import Counters

OWNERS = ["me", "you and I"]
TTL_SECONDS = 1000
MAX_QUEUED = 3
MAX_ATTEMPTS = 3


@dataclass(slots=True)
class ModelJob:
    """A job in the model.

    turn: jobs of one priority start in this order. losses: workers that died while they ran it, unless another job was
    on trial there. is_scheduled: it must not start yet.
    """

    id: str
    request: JobRequest
    owner: str
    idempotency_key: str | None
    turn: float
    status: Status = Status.QUEUED
    token: int = 0
    attempt: int = 0
    losses: int = 0
    worker: str = ""
    texts: list[str] = field(default_factory=list)
    output: str = ""
    has_waited_too_long: bool = False
    is_cancel_requested: bool = False
    is_lease_over: bool = False
    is_scheduled: bool = False

    @property
    def is_expiring(self) -> bool:
        return self.status is Status.QUEUED and self.attempt == 0 and self.request.expires_in_seconds is not None

    @property
    def kept_seconds(self) -> int:
        return min(self.request.ttl_seconds or TTL_SECONDS, TTL_SECONDS)

    @property
    def order_key(self) -> tuple[int, float]:
        return self.request.priority.step, self.turn


class Model:
    """Each method does what the store, a worker's script or the reaper should do, and returns the expected answer."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.trials: dict[str, str] = {}
        self.counted = dict.fromkeys(OWNERS, Counters())  # what the ended jobs of each owner have used, but for time
        self._turns = 0

    def of_status(self, *statuses: Status) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.status in statuses]

    def order(self) -> list[ModelJob]:
        waiting = [job for job in self.of_status(Status.QUEUED) if not job.is_scheduled]
        return sorted(waiting, key=lambda job: job.order_key)

    def admit(self, job_id: str, request: JobRequest, owner: str, key: str | None) -> str:
        """Return the id of the job that answers the request, "conflict" or "full"."""
        for job in self.jobs.values():
            if key is not None and (job.owner, job.idempotency_key) == (owner, key):
                return job.id if job.request == request else "conflict"
        if len(self.of_status(Status.QUEUED)) >= MAX_QUEUED:
            return "full"
        turn = self._next_turn() if request.not_before is None else request.not_before
        self.jobs[job_id] = ModelJob(job_id, request, owner, key, turn, is_scheduled=request.not_before is not None)
        return job_id

    def start(self, job_id: str) -> None:
        """Let the time of a job come."""
        self.jobs[job_id].is_scheduled = False

    def claim(self, worker: str) -> str | None:
        """Return the id of the job that the worker gets."""
        for job in self.order():
            if job.is_expiring and job.has_waited_too_long:
                self._end(job, Status.EXPIRED)
                continue
            job.status, job.worker = Status.PROCESSING, worker
            job.token += 1
            job.attempt += 1
            job.is_lease_over = False
            return job.id
        return None

    def holds(self, job_id: str, token: int) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and (job.status, job.token) == (Status.PROCESSING, token)

    def publish(self, job_id: str, token: int, before: int, text: str) -> int:
        """Return 1, 0 when fenced, -1 when tokens before this one are missing."""
        if not self.holds(job_id, token):
            return self._answer_to_late_write(job_id, token)
        texts = self.jobs[job_id].texts
        if before == len(texts):
            texts.append(text)
        return 1 if before < len(texts) else -1

    def finish(self, job_id: str, token: int, status: Status, usage: Usage) -> int:
        if not self.holds(job_id, token):
            return self._answer_to_late_write(job_id, token)
        job = self.jobs[job_id]
        job.status, job.output = status, "".join(job.texts)
        self._count(job, usage)
        return 1

    def hand_back(self, job_id: str, token: int) -> bool:
        if not self.holds(job_id, token):
            return False
        job = self.jobs[job_id]
        if job.is_cancel_requested:
            self._end(job, Status.CANCELED)
        else:
            job.status = Status.QUEUED
        return True

    def cancel(self, job_id: str) -> Status:
        job = self.jobs[job_id]
        if job.status is Status.QUEUED or (job.status is Status.PROCESSING and job.is_lease_over):
            self._end(job, Status.CANCELED)
        elif job.status is Status.PROCESSING:
            job.is_cancel_requested = True
        return job.status

    def forget(self, job_id: str) -> bool:
        if not self.jobs[job_id].status.is_final:
            return False
        del self.jobs[job_id]
        return True

    def reap(self) -> None:
        lost = [job for job in self.of_status(Status.PROCESSING) if job.is_lease_over]
        for job in sorted(lost, key=lambda job: job.order_key):
            self._take_from_worker(job)
        for job in self.of_status(Status.QUEUED):
            if job.is_expiring and job.has_waited_too_long:
                self._end(job, Status.EXPIRED)

    def _take_from_worker(self, job: ModelJob) -> None:
        is_to_blame = self.trials.get(job.worker, job.id) == job.id
        job.losses += is_to_blame
        if job.is_cancel_requested:
            self._end(job, Status.CANCELED)
        elif job.losses >= MAX_ATTEMPTS:
            self._end(job, Status.FAILED)
        else:
            job.status = Status.QUEUED
            job.token += 1
            if is_to_blame and job.losses > 1:
                job.turn = self._next_turn()

    def _answer_to_late_write(self, job_id: str, token: int) -> int:
        """Answer a late write: 1 again to the worker that ended the job, 0 (fenced) to any other."""
        job = self.jobs.get(job_id)
        return int(job is not None and job.status.is_final and job.token == token)

    def _end(self, job: ModelJob, status: Status) -> None:
        """End the job without its worker, whose later writes are fenced."""
        job.status, job.output = status, "".join(job.texts)
        job.token += 1
        self._count(job, Usage(completion_tokens=len(job.texts)))

    def _count(self, job: ModelJob, usage: Usage) -> None:
        """Count an ended job: once, whatever is sent again or too late."""
        self.counted[job.owner] += Counters(**{str(job.status): 1}, **asdict(usage))

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns
