"""The registry of jobs that a worker has claimed and whose outcome is not written yet.

Leases, publisher, quarantine and worker share it.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from app.jobs.events import Delta, End, Published
from app.jobs.job import AdapterUse, FinishReason, Metrics, Output, Status, Usage
from app.jobs.output_writer import OutputWrite
from app.jobs.record import outcome_fields
from app.jobs.store import Claim
from workers.engines.runner import Outcome, RunnerJob

UNFOLLOWED_SECONDS = 0.5  # between two writes of a job that no client follows


class RunningJob(RunnerJob):
    """A claimed job: its claim, what it has produced, and what is to be done with it.

    After `load_published`, only the publisher's thread changes its output and its outcome. Output passes through three
    lists: `_new` (not sent), `frozen` (sent, not confirmed; resent unchanged), `_written` (confirmed).

    followed: a client reads its stream. is_ready: what earlier attempts have written is known, so it may begin.
    passed_trial: it is no longer suspected of having ended its worker. is_handed_back: this worker shuts down, and the
    job returns to the waiting jobs. cache_key: if the job succeeds, its id is kept under this key. closed: set when
    this worker is done with it: its outcome is written, it was handed back, or another worker has it.
    """

    def __init__(self, claim: Claim, *, scope: str | None = None) -> None:
        """`scope`: as of `RunnerJob`; None: the job's tenant."""
        request = claim.request
        time_left = request.timeout_seconds - claim.ran_seconds
        scope = claim.tenant if scope is None else scope
        self.claim = claim
        self.claimed_at = time.time()
        super().__init__(claim.job_id, request, tenant=claim.tenant, scope=scope, timeout_seconds=time_left)
        self.followed = claim.followed
        self.is_ready = False
        self.passed_trial = False
        self.is_handed_back = False
        self.cache_key: str | None = None
        self.outcome: Outcome | None = None
        self.closed = threading.Event()
        self.frozen: list[Delta] = []
        self._new: list[Delta] = []
        self._written: list[Delta] = []
        self._written_at = time.monotonic()
        self._frozen_tokens = 0  # in all deltas that were ever frozen, written ones included
        self._first_token_seconds: float | None = None  # after the job was ready, where an earlier attempt wrote it

    def use_adapters(self, adapters: tuple[AdapterUse, ...]) -> None:
        super().use_adapters(adapters)
        self.claim = replace(self.claim, request=self.request)

    @property
    def is_suspect(self) -> bool:
        """A worker died while this job ran there, and the job may have been the reason."""
        return self.claim.losses > 0 and not self.passed_trial

    @property
    def has_no_text_yet(self) -> bool:
        """A client follows the job, and no token of it has been frozen."""
        return self.followed and self._frozen_tokens == 0

    @property
    def next_write_is_first_text(self) -> bool:
        """The next write of the job is the first text that a client waits for."""
        return self.followed and self.outcome is None and bool(self.frozen) and self._written_tokens == 0

    def load_published(self, published: Published | None) -> None:
        """Make the job ready to begin. What an earlier attempt has published counts as written."""
        if published is not None:
            self.published = published
            self._written = list(published.deltas)
            self._frozen_tokens = len(published.tokens)
            if published.first_at is not None:
                self._first_token_seconds = max(0.0, published.first_at - self.claim.ready_at)
        self.is_ready = True

    def add(self, delta: Delta | None, outcome: Outcome | None) -> None:
        """Add what the job has produced. The first outcome counts; later output is dropped."""
        if self.outcome is not None:
            return
        if delta is not None:
            self._new.append(delta)
        self.outcome = outcome

    def freeze(self) -> bool:
        """Merge the new output into one delta, if a write is due. False: nothing is to be written now."""
        ends = self.outcome is not None or self.is_handed_back
        if not (ends or self.followed or time.monotonic() - self._written_at >= UNFOLLOWED_SECONDS):
            return False
        if any(delta.text or delta.tokens for delta in self._new):
            merged = self._new[0] if len(self._new) == 1 else _merged(self._new)
            self.frozen.append(merged)
            self._frozen_tokens += len(merged.tokens)
            self._new = []
        return ends or bool(self.frozen)

    def writes(self) -> list[OutputWrite]:
        """Return what to write: one for each frozen delta; the last one carries the outcome."""
        before, writes = self._written_tokens, []
        for delta in self.frozen:
            writes.append(self._write(before, delta))
            before += len(delta.tokens)
        if self.outcome is not None:
            last = writes.pop() if writes else self._write(before, None)
            outcome = self.outcome
            end = End(outcome.status, outcome.finish_reason, outcome.usage, outcome.error)
            writes.append(replace(last, end=end, end_fields=self._record_fields(outcome)))
        return writes

    def confirm(self) -> None:
        """Count what was frozen as written: Redis has confirmed it."""
        self._written += self.frozen
        self.frozen = []
        self._written_at = time.monotonic()

    def rewind(self) -> None:
        """Send everything again, as Redis lacks what it had confirmed. Redis writes nothing twice."""
        self.frozen, self._written = self._written + self.frozen, []

    def end_line(self) -> dict[str, object]:
        """Return what the log says of a job that has ended. None of it is what the client sent or gets."""
        assert self.outcome is not None
        usage, metrics, error = self.outcome.usage, self.metrics, self.outcome.error
        return {
            "job": self.id,
            "attempt": self.claim.attempt,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "queue_seconds": metrics.queue_seconds,
            "first_token_seconds": metrics.time_to_first_token_seconds,
            "tokens_per_second": metrics.tokens_per_second,
            "source": metrics.source,
            "error": None if error is None else error.code,
        }

    def canceled_outcome(self) -> Outcome:
        """Return the outcome of a job that is canceled before it runs. What an earlier attempt has published stays."""
        usage = Usage(completion_tokens=self._frozen_tokens)
        return Outcome(status=Status.CANCELED, finish_reason=FinishReason.CANCELED, usage=usage)

    @property
    def _written_tokens(self) -> int:
        return self._frozen_tokens - sum(len(delta.tokens) for delta in self.frozen)

    def _write(self, before: int, delta: Delta | None) -> OutputWrite:
        return OutputWrite(
            job_id=self.id, token=self.claim.token, delta=delta, before=before, is_followed=self.followed
        )

    def _record_fields(self, outcome: Outcome) -> list[str]:
        """The outcome as field, value, field, value, ... of the job record."""
        whole = _merged(self._written + self.frozen)
        output = Output(
            text=whole.text,
            finish_reason=outcome.finish_reason,
            logprobs=list(whole.logprobs) or None,
            embeddings=outcome.embeddings,
        )
        fields = outcome_fields(
            outcome.status, output=output, usage=outcome.usage, metrics=self.metrics, error=outcome.error
        )
        return [part for pair in fields.items() for part in pair]

    @property
    def metrics(self) -> Metrics:
        """The times of a job that has ended."""
        outcome = self.outcome
        assert outcome is not None
        queue_seconds, first_token_seconds = self.claim.queue_seconds, self._first_token_seconds
        if first_token_seconds is None and outcome.first_token_seconds is not None:
            first_token_seconds = queue_seconds + outcome.first_token_seconds
        return Metrics(
            source=outcome.source,
            queue_seconds=round(queue_seconds, 6),
            time_to_first_token_seconds=None if first_token_seconds is None else round(first_token_seconds, 6),
            tokens_per_second=outcome.tokens_per_second,
        )


class RunningJobs:
    """The claimed jobs, oldest claim first.

    May hold two attempts at one job: a lost one that is ending and its successor.
    """

    def __init__(self) -> None:
        self._jobs: dict[RunningJob, None] = {}
        self._claimants: set[threading.Thread] = set()
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(list(self._jobs))  # other threads add and remove meanwhile

    def __len__(self) -> int:
        """Jobs claimed, or being claimed."""
        return len(self._jobs) + len(self._claimants)

    def __contains__(self, job: RunningJob) -> bool:
        return job in self._jobs

    def get(self, job_id: str) -> RunningJob | None:
        """Return the latest attempt at a job."""
        return next((job for job in reversed(list(self._jobs)) if job.id == job_id), None)

    @property
    def is_claiming(self) -> bool:
        return bool(self._claimants)

    @property
    def suspects(self) -> list[RunningJob]:
        return [job for job in self if job.is_suspect]

    def add(self, job: RunningJob) -> None:
        with self._changed:
            self._jobs[job] = None

    def remove(self, job: RunningJob) -> int:
        """Remove a job. Returns how many jobs there were, this one included."""
        with self._changed:
            before = len(self)
            self._jobs.pop(job, None)
            job.run = None  # it refers to the job: the cycle would keep both until the garbage collector runs
            self._changed.notify_all()
            return before

    def begin_claim(self, claimant: threading.Thread) -> None:
        """Count the job that a thread is about to claim."""
        with self._changed:
            self._claimants.add(claimant)

    def end_claim(self, claimant: threading.Thread) -> None:
        """Stop counting the job of a thread: it has been added, or there was none to claim."""
        with self._changed:
            self._claimants.discard(claimant)
            self._changed.notify_all()

    def wait_until_empty(self, seconds: float) -> bool:
        """False: some jobs are left."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self) == 0, timeout=seconds)


class JobControl(Protocol):
    """What leases and publisher do to running jobs: `workers.worker.Worker`."""

    def cancel(self, job: RunningJob) -> None:
        """End a job before its next step."""

    def follow(self, job: RunningJob) -> None:
        """Write the job's output at every step from now on."""

    def remove(self, job: RunningJob) -> None:
        """Remove a job with which this worker is done."""


def _merged(deltas: list[Delta]) -> Delta:
    return Delta(
        text="".join(delta.text for delta in deltas),
        tokens=tuple(token for delta in deltas for token in delta.tokens),
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
    )
