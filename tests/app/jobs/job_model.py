"""The promises about jobs as a model in plain Python: without Redis, and time passes only in steps of the test."""

from dataclasses import asdict, dataclass, field

from app.jobs.job import JobRequest, Priority, Status, Usage
from app.ledger.usage import Counters
from tests.app.jobs.share_model import Shares

OWNERS = {"me": 1.0, "you and I": 2.0}
"""The owners, each a tenant of its own, and their weights."""
LIMITED = "you and I"  # its key has limits, which are not reached
TTL_SECONDS = 1000
MAX_QUEUED = 3
MAX_ATTEMPTS = 3


@dataclass(slots=True)
class ModelJob:
    """A job in the model.

    turn: jobs of one tenant and class start in this order. step: its class, which aging makes better than that of its
    priority. charged: what its
    tenant was charged for it, in weighted tokens. losses: workers that died while they ran it, unless another job was
    on trial there. is_scheduled: it must not start yet.
    """

    id: str
    request: JobRequest
    owner: str
    idempotency_key: str | None
    turn: float
    priority: Priority
    step: int
    charged: float = 0.0
    status: Status = Status.QUEUED
    token: int = 0
    attempt: int = 0
    losses: int = 0
    worker: str = ""
    texts: list[str] = field(default_factory=list)
    output: str = ""
    has_waited_too_long: bool = False
    is_left_to_reaper: bool = False
    has_aged: bool = False
    is_cancel_requested: bool = False
    is_lease_over: bool = False
    is_scheduled: bool = False
    is_due: bool = False

    @property
    def is_expiring(self) -> bool:
        return self.status is Status.QUEUED and self.attempt == 0 and self.request.expires_in_seconds is not None

    @property
    def kept_seconds(self) -> int:
        return min(self.request.ttl_seconds or TTL_SECONDS, TTL_SECONDS)

    @property
    def order_key(self) -> tuple[int, float]:
        return self.step, self.turn


class Model:
    """Each method does what the store, a worker's script or the reaper should do, and returns the expected answer."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.trials: dict[str, str] = {}
        self.counted = dict.fromkeys(OWNERS, Counters())  # what the ended jobs of each owner have used, but for time
        self.shares = Shares(OWNERS)
        self._turns = 0

    def of_status(self, *statuses: Status) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.status in statuses]

    def order(self, tenant: str) -> list[ModelJob]:
        """Return the waiting jobs of a tenant in their order."""
        waiting = [job for job in self.waiting() if job.owner == tenant]
        return sorted(waiting, key=lambda job: job.order_key)

    def waiting(self) -> list[ModelJob]:
        return [job for job in self.of_status(Status.QUEUED) if not (job.is_scheduled or job.is_left_to_reaper)]

    def admit(self, job_id: str, request: JobRequest, owner: str, key: str | None) -> str:
        """Return the id of the job that answers the request, "conflict" or "full"."""
        for job in self.jobs.values():
            if key is not None and (job.owner, job.idempotency_key) == (owner, key):
                return job.id if job.request == request else "conflict"
        if sum(not job.is_left_to_reaper for job in self.of_status(Status.QUEUED)) >= MAX_QUEUED:
            return "full"
        turn = self._next_turn() if request.not_before is None else request.not_before
        priority, is_scheduled = request.priority, request.not_before is not None
        job = ModelJob(job_id, request, owner, key, turn, priority, priority.step, is_scheduled=is_scheduled)
        self.jobs[job_id] = job
        self._seat(owner)
        return job_id

    def start(self, job_id: str) -> None:
        """Let the time of a job come: it starts to wait at the next turn of the reaper."""
        self.jobs[job_id].is_due = True

    def claim(self, worker: str) -> str | None:
        """Return the id of the job that the worker gets."""
        while (job := self._first()) is not None:
            if job.is_expiring and job.has_waited_too_long:
                job.is_left_to_reaper = True
                self._seat(job.owner)
                continue
            job.status, job.worker = Status.PROCESSING, worker
            job.token += 1
            job.attempt += 1
            job.is_lease_over = job.has_aged = False
            job.charged = self.shares.charge(job.owner, job.step, len(job.texts), job.charged)
            self._seat(job.owner)
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
        self.shares.settle(job.owner, usage, job.charged, by_worker=True)
        return 1

    def hand_back(self, job_id: str, token: int) -> bool:
        if not self.holds(job_id, token):
            return False
        job = self.jobs[job_id]
        if job.is_cancel_requested:
            self._end(job, Status.CANCELED)
        else:
            job.status = Status.QUEUED
            self._seat(job.owner)
        return True

    def cancel(self, job_id: str) -> Status:
        job = self.jobs[job_id]
        if job.status is Status.QUEUED or (job.status is Status.PROCESSING and job.is_lease_over):
            self._end(job, Status.CANCELED)
        elif job.status is Status.PROCESSING:
            job.is_cancel_requested = True
        return job.status

    def change_priority(self, job_id: str, priority: Priority) -> Status:
        """Return the status: only a queued job is changed."""
        job = self.jobs[job_id]
        if job.status is Status.QUEUED and job.priority is not priority:
            job.priority, job.step, job.has_aged = priority, priority.step, False
            self._seat(job.owner)
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
            if job.is_scheduled and job.is_due:
                job.is_scheduled = False
                self._seat(job.owner)
        for job in sorted(self.of_status(Status.QUEUED), key=lambda job: job.id):  # as Redis sorts equal times
            if job.is_expiring and job.has_waited_too_long:
                self._end(job, Status.EXPIRED)
        risen = [job for job in self.waiting() if job.has_aged]
        for job in risen:
            job.step, job.has_aged = job.step - 1, False
        for owner in {job.owner for job in risen}:
            self._seat(owner)

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
            self._seat(job.owner)

    def _first(self) -> ModelJob | None:
        tenant = self.shares.first()
        return None if tenant is None else self.order(tenant)[0]

    def _seat(self, tenant: str) -> None:
        waiting = self.order(tenant)
        self.shares.seat(tenant, waiting[0].step if waiting else None)

    def _answer_to_late_write(self, job_id: str, token: int) -> int:
        """Answer a late write: 1 again to the worker that ended the job, 0 (fenced) to any other."""
        job = self.jobs.get(job_id)
        return int(job is not None and job.status.is_final and job.token == token)

    def _end(self, job: ModelJob, status: Status) -> None:
        """End the job without its worker, whose later writes are fenced."""
        job.status, job.output = status, "".join(job.texts)
        job.token += 1
        self._seat(job.owner)
        usage = Usage(completion_tokens=len(job.texts))
        self._count(job, usage)
        self.shares.settle(job.owner, usage, job.charged)

    def _count(self, job: ModelJob, usage: Usage) -> None:
        """Count an ended job: once, whatever is sent again or too late."""
        self.counted[job.owner] += Counters(**{str(job.status): 1}, **asdict(usage))

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns
