"""The interface of a runner: it takes jobs from a worker and reports what they produce and how they end.

Two runners exist: `workers.batching.runner.BatchRunner` computes jobs with an `Engine`, and
`workers.engines.remote.runner.RemoteRunner` forwards them to another server.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple, Protocol

from app.config.adapters import Adapter
from app.config.finding import Finding
from app.config.settings import Config
from app.errors import EngineFailed, JobTimeout, LLMAPIError, ModelUnavailable
from app.jobs.events import Delta, Published
from app.jobs.job import AdapterUse, Chat, FinishReason, JobError, JobRequest, OutputSource, Status, Usage
from workers.engines.runner_counts import RunnerCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended.

    source: where the output comes from; None: the job ended before a runner began it.
    first_token_seconds: after the job reached its runner.
    """

    status: Status
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    error: JobError | None = None
    embeddings: list[list[float]] | None = None
    source: OutputSource | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


class RunnerJob:
    """A job as its runner sees it.

    tenant: whose job it is: tenants take turns where jobs wait for this worker.
    scope: jobs of one scope may share what is computed for them, and no others: whether a computation was shared shows
    in its time and in `usage.cached_tokens`. Empty: everybody's. What is computed with an adapter is no part of what is
    computed without it, so jobs with other adapters have other scopes.
    timeout_seconds: what is left of its time. published: what earlier attempts have written; None: nothing.
    submitted_at: when its runner got it (`time.monotonic`): its time runs from then on. cancel_requested: it must end
    before its next step. run: the current attempt, set when the runner begins the job;
    embeddings have none. Once it is set, the runner reports the job's end, also after a cancellation.
    """

    def __init__(
        self,
        job_id: str,
        request: JobRequest,
        *,
        tenant: str = "",
        scope: str = "",
        timeout_seconds: float = 600.0,
        published: Published | None = None,
    ) -> None:
        self.id = job_id
        self.request = request
        self.tenant = tenant
        self._scope_without_adapters = scope
        self.use_adapters(request.adapters)
        self.timeout_seconds = timeout_seconds
        self.published = published
        self.submitted_at: float | None = None
        self.cancel_requested = False
        self.run: Run | None = None

    def use_adapters(self, adapters: tuple[AdapterUse, ...]) -> None:
        """Compute the job with these adapters. Call it before the job is submitted."""
        self.request = replace(self.request, adapters=adapters)
        scope = self._scope_without_adapters
        self.scope = json.dumps([scope, *map(asdict, adapters)]) if adapters else scope


class Report(NamedTuple):
    """What a job has produced: a piece of output, its outcome, or both."""

    job: RunnerJob
    delta: Delta | None
    outcome: Outcome | None


class Run(ABC):
    """One attempt at a job that generates tokens: its clock, and its one outcome."""

    def __init__(self, job: RunnerJob) -> None:
        self.job = job
        self.outcome: Outcome | None = None
        self.submitted_at = time.monotonic() if job.submitted_at is None else job.submitted_at
        self.first_token_at: float | None = None
        self._deadline = self.submitted_at + job.timeout_seconds

    @property
    @abstractmethod
    def usage(self) -> Usage: ...

    @property
    @abstractmethod
    def new_tokens(self) -> int:
        """Tokens that this attempt has generated."""

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def note_token(self) -> None:
        """A token was generated."""
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()

    def end(self, status: Status, finish_reason: FinishReason, error: JobError | None = None) -> Outcome:
        decoded, first_at = self.new_tokens - 1, self.first_token_at
        decoding_seconds = 0.0 if first_at is None else time.monotonic() - first_at
        self.outcome = Outcome(
            status=status,
            finish_reason=finish_reason,
            usage=self.usage,
            error=error,
            source=OutputSource.COMPUTED,
            first_token_seconds=None if first_at is None else first_at - self.submitted_at,
            tokens_per_second=round(decoded / decoding_seconds, 3) if decoded > 0 and decoding_seconds > 0 else None,
        )
        return self.outcome

    def end_canceled(self) -> Outcome:
        return self.end(Status.CANCELED, FinishReason.CANCELED)

    def end_timed_out(self) -> Outcome:
        error = JobTimeout("the job ran longer than its timeout; ask for fewer tokens or raise `timeout`")
        return self.end(Status.FAILED, FinishReason.TIMEOUT, job_error(error))

    def end_failed(self, error: Exception) -> Outcome:
        return self.end(Status.FAILED, FinishReason.ERROR, job_error(error))


class RunnerHost(Protocol):
    """The worker, as its runner sees it. Called from any thread."""

    def report(self, reports: Sequence[Report]) -> None:
        """Publish what jobs have produced; does not wait for Redis."""

    def fail(self, job: RunnerJob, error: Exception) -> None:
        """End a job that has no `run`."""

    def answer_from_cache(self, job: RunnerJob, prompt_tokens: Sequence[int]) -> bool:
        """Complete a deterministic job with the cached response to the same request.

        Returns False if there is none; the job's own response is then cached when it succeeds.
        """

    def pass_trial(self, job: RunnerJob) -> None:
        """Record that a job that was submitted alone has passed its trial."""


class Runner(ABC):
    """Runs jobs until `stop`. Each submitted job gets exactly one outcome, unless the runner is stopped first.

    slots: how many jobs may run at once. context_tokens: of prompt and completion together, None: not known here.
    token_bytes, device, default_params: as those of `Engine`.
    """

    slots: int
    context_tokens: int | None
    token_bytes: int = 0
    device: str = ""
    default_params: Mapping[str, float] = {}

    @classmethod  # noqa: B027 - optional hook
    def check(cls, config: Config) -> None:
        """As `Engine.check`."""

    @classmethod
    def diagnose(cls, config: Config) -> Iterator[Finding]:
        """As `Engine.diagnose`."""
        yield from ()

    @property
    @abstractmethod
    def running_count(self) -> int:
        """Jobs that generate tokens now."""

    @property
    def used_cells(self) -> int:
        """Cache cells held by running jobs; with none running, anything but 0 is a leak."""
        return 0

    @property
    def counts(self) -> RunnerCounts | None:
        """What it has counted of its steps; None: it has none."""
        return None

    @property
    def seconds_in_turn(self) -> float:
        """How long its loop has been in the turn that runs now; 0 while it waits for work, or has no loop."""
        return 0.0

    def start(self) -> None:  # noqa: B027 - optional hook
        """Begin to run what is submitted."""

    @abstractmethod
    def submit(self, job: RunnerJob) -> None:
        """Run a job. Returns at once; an invalid request is reported as the job's outcome."""

    def pause_all(self) -> None:  # noqa: B027 - optional hook
        """Let no job step until `submit_alone` or `release_others`. Returns when no step runs any more."""

    @abstractmethod
    def submit_alone(self, job: RunnerJob, *, tokens: int | None) -> None:
        """Run a job that may end this process while all others pause, until `release_others`.

        tokens: after so many new ones `RunnerHost.pass_trial` is called. None: no check, the job runs alone to its end.
        """

    def release_others(self) -> None:  # noqa: B027 - optional hook
        """Continue the jobs that paused for one that was submitted alone."""

    @abstractmethod
    def cancel(self, job: RunnerJob) -> None:
        """End a job that has begun and whose cancellation was requested. One that has ended stays as it is."""

    def load_adapter(self, adapter: Adapter) -> None:
        """As `Engine.load_adapter`."""
        raise ModelUnavailable("this family has no LoRA adapters")

    def unload_adapter(self, name: str, version: str) -> None:  # noqa: B027 - optional hook
        """As `Engine.unload_adapter`."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the jobs that generate. Embeddings and jobs that are being prepared may still be reported."""

    @abstractmethod
    def close(self) -> None:
        """Stop, and free the model."""

    @abstractmethod
    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        """As `Engine.tokenize`."""

    @abstractmethod
    def detokenize(self, tokens: Sequence[int]) -> str:
        """As `Engine.detokenize`."""


def embedded(results: list[tuple[list[float], int]]) -> Outcome:
    """Return the outcome of a job whose texts have these vectors and numbers of tokens."""
    return Outcome(
        status=Status.SUCCEEDED,
        embeddings=[vector for vector, _ in results],
        usage=Usage(prompt_tokens=sum(tokens for _, tokens in results)),
        source=OutputSource.COMPUTED,
    )


def job_error(error: Exception) -> JobError:
    """Return an error as the job record shows it: our own errors with their code, any other as `engine_error`."""
    if not isinstance(error, LLMAPIError):
        error = EngineFailed(f"the engine failed on this request ({type(error).__name__}); the worker's log says more")
    return JobError(
        code=error.code,
        message=error.detail,
        errors={name: list(messages) for name, messages in error.errors.items()},
    )
