"""Workers with a simulated engine: jobs in a real Redis, whose scripts decide the order, on a clock of the test's own.

A job takes a second for every `PROMPT_PER_SECOND` tokens of its prompt, and one for every `TOKENS_PER_SECOND` that it
writes, whatever else runs.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from app.jobs import keys
from app.jobs.events import End
from app.jobs.job import Job, JobRequest, Kind, Metrics, Output, Priority, Status, Usage
from app.jobs.output_writer import WRITTEN, OutputWrite, OutputWriter
from app.jobs.principal import Principal
from app.jobs.record import outcome_fields
from app.jobs.sharing import CHARACTERS_PER_TOKEN
from app.jobs.store import Claim, JobStore

PROMPT_PER_SECOND = 1000.0
TOKENS_PER_SECOND = 50.0


@dataclass
class Tenant:
    """A tenant whose jobs have these prompts and write so many tokens."""

    name: str
    weight: float
    prompt_tokens: Callable[[], int]
    completion_tokens: Callable[[], int]
    priority: Priority = Priority.NORMAL

    @property
    def principal(self) -> Principal:
        return Principal(owner=self.name, tenant=self.name, weight=self.weight)

    def request(self) -> JobRequest:
        length = self.completion_tokens()
        prompt = "x" * CHARACTERS_PER_TOKEN * self.prompt_tokens()
        return JobRequest(kind=Kind.GENERATE, prompt=prompt, params={"max_tokens": length}, priority=self.priority)


@dataclass(frozen=True, slots=True)
class Running:
    claim: Claim
    usage: Usage
    started_at: float
    ends_at: float

    def served(self, now: float) -> float:
        """Return the weighted tokens that are computed by now."""
        usage, seconds = self.usage, now - self.started_at
        prompt = min(float(usage.prompt_tokens), seconds * PROMPT_PER_SECOND)
        writing = max(0.0, seconds - usage.prompt_tokens / PROMPT_PER_SECOND)
        return prompt + 2.0 * min(float(usage.completion_tokens), writing * TOKENS_PER_SECOND)


@dataclass
class SimulatedWorkers:
    """Workers with slots. `now`: seconds of the simulated clock. started: when each job started."""

    raw: "redis.Redis"
    store: JobStore
    writer: OutputWriter
    slots: int
    names: tuple[str, ...] = ("worker-1", "worker-2")
    now: float = 0.0
    started: dict[str, float] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    _served: dict[str, float] = field(default_factory=dict)
    _running: list[tuple[float, int, str, Running]] = field(default_factory=list)

    def admit(self, tenant: Tenant) -> Job:
        return self.store.admit(tenant.request(), tenant.principal)

    def claim(self) -> None:
        """Let each worker with a free slot claim jobs, in turn, until no slot is free or no job waits."""
        while len(self._running) < self.slots * len(self.names):
            counts = Counter(name for _, _, name, _ in self._running)
            worker = min(self.names, key=lambda name: counts[name])
            claim = self.store.claim(worker)
            if claim is None:
                return
            usage = Usage(
                prompt_tokens=len(claim.request.prompt) // CHARACTERS_PER_TOKEN,
                completion_tokens=claim.request.params["max_tokens"],
            )
            seconds = usage.prompt_tokens / PROMPT_PER_SECOND + usage.completion_tokens / TOKENS_PER_SECOND
            running = Running(claim, usage, self.now, self.now + seconds)
            heapq.heappush(self._running, (running.ends_at, len(self.started), worker, running))
            self.started[claim.job_id] = self.now

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def next_end(self) -> float:
        """Return when a slot is free next."""
        return self._running[0][0] if self._running else self.now

    def end_next(self) -> Running:
        """Let the clock run to the end of the next job."""
        self.now, _, _, running = heapq.heappop(self._running)
        claimed_at = time.time() - (running.ends_at - running.started_at)  # the scripts measure it
        self.raw.hset(keys.job(running.claim.job_id), "claimed_at", f"{claimed_at:.6f}")
        fields = outcome_fields(Status.SUCCEEDED, output=Output(), usage=running.usage, metrics=Metrics(), error=None)
        end = OutputWrite(
            job_id=running.claim.job_id,
            token=running.claim.token,
            end=End(Status.SUCCEEDED),
            end_fields=[part for pair in fields.items() for part in pair],
        )
        assert self.writer.write([end]) == [WRITTEN]
        tenant = running.claim.tenant
        self.ended[tenant] += 1
        self._served[tenant] = self._served.get(tenant, 0.0) + running.served(self.now)
        return running

    def served(self) -> dict[str, float]:
        """Return the weighted tokens computed so far for each tenant, those of running jobs included."""
        served = dict(self._served)
        for _, _, _, running in self._running:
            tenant = running.claim.tenant
            served[tenant] = served.get(tenant, 0.0) + running.served(self.now)
        return served
