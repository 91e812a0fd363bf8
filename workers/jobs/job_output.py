"""What the publisher knows of one running job, and how that is written."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from app.jobs.events import Published
from app.jobs.job import AnswerSource, FinishReason, JobError, Metrics, Output, Status, TokenLogprob, Usage
from app.jobs.publishing import OutputWrite
from app.jobs.record import outcome_fields
from app.jobs.store import Claim
from workers.batching.sequence import BatchSequence, Outcome


@dataclass(frozen=True, slots=True)
class ComposedDelta:
    """One entry of the event stream, frozen once composed: it is sent again unchanged until Redis has confirmed it."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
    tokens_before: int


@dataclass(slots=True, eq=False)
class JobOutput:
    """What is known, and not yet written, of one running job."""

    claim: Claim
    followed: bool
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    composed_tokens: int = 0
    unsent: list[ComposedDelta] = field(default_factory=list)
    written: list[ComposedDelta] = field(default_factory=list)
    written_at: float = 0.0
    end: "End | None" = None
    key: str | None = None  # under which the answer, if there will be one, is kept for the same request
    leaves: bool = False  # this worker is leaving: the job goes back into the queue
    first_token_seconds: float | None = None  # after the job's creation, where an earlier attempt wrote the first
    on_closed: Callable[[], None] = lambda: None
    closed: threading.Event = field(default_factory=threading.Event)

    def set_end(self, end: "End") -> None:
        """The first end counts."""
        if self.end is None:
            self.end = end

    def take_over(self, published: Published) -> None:
        """What another worker has written stands as written."""
        for delta in published.deltas:
            self.written.append(
                ComposedDelta(delta.text, list(delta.tokens), list(delta.logprobs), self.composed_tokens)
            )
            self.composed_tokens += len(delta.tokens)
        if published.first_at is not None:
            self.first_token_seconds = max(0.0, published.first_at - self.claim.created_at)

    def compose(self) -> None:
        """Freeze what has come since the last round."""
        if self.text or self.tokens:
            self.unsent.append(ComposedDelta(self.text, self.tokens, self.logprobs, self.composed_tokens))
            self.composed_tokens += len(self.tokens)
            self.text, self.tokens, self.logprobs = "", [], []

    @property
    def brings_first_text(self) -> bool:
        """A follower waits for it."""
        return self.followed and self.end is None and bool(self.unsent) and self.unsent[0].tokens_before == 0

    def rewind(self) -> None:
        """Send everything again: what is there is not written twice."""
        self.unsent, self.written = self.written, []


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    status: Status
    finish_reason: FinishReason | None
    usage: Usage
    metrics: Metrics
    error: JobError | None = None
    embeddings: list[list[float]] | None = None


def outputs_of(page: JobOutput) -> list[OutputWrite]:
    """One for each unsent delta; the last one carries the end."""
    claim = page.claim
    made = [
        OutputWrite(
            job_id=claim.job_id,
            token=claim.token,
            delta=_delta_data(delta),
            tokens=_json(delta.tokens),
            before=delta.tokens_before,
            after=delta.tokens_before + len(delta.tokens),
            is_followed=page.followed,
        )
        for delta in page.unsent
    ]
    if page.end is None:
        return made
    composed = page.composed_tokens
    nothing = OutputWrite(job_id=claim.job_id, token=claim.token, before=composed, after=composed)
    last = made.pop() if made else nothing
    return [*made, replace(last, end=_end_event(page.end), end_fields=_end_fields(page))]


def _delta_data(delta: ComposedDelta) -> str:
    data: dict[str, object] = {"text": delta.text}
    if delta.logprobs:
        data["logprobs"] = [asdict(entry) for entry in delta.logprobs]
    return _json(data)


def _end_event(end: End) -> str:
    data: dict[str, object] = {
        "status": end.status,
        "finish_reason": end.finish_reason,
        "usage": asdict(end.usage),
        "error": None if end.error is None else asdict(end.error),
    }
    return _json({name: value for name, value in data.items() if value is not None})


def _end_fields(page: JobOutput) -> list[str]:
    """The outcome as field, value, field, value, ... of the job record."""
    end = page.end
    assert end is not None
    deltas = page.written + page.unsent
    logprobs = [entry for delta in deltas for entry in delta.logprobs]
    output = Output(
        text="".join(delta.text for delta in deltas),
        finish_reason=end.finish_reason,
        logprobs=logprobs or None,
        embeddings=end.embeddings,
    )
    fields = outcome_fields(end.status, output=output, usage=end.usage, metrics=end.metrics, error=end.error)
    return [part for pair in fields.items() for part in pair]


def end_of(page: JobOutput, sequence: BatchSequence, outcome: Outcome) -> End:
    claim = page.claim
    ended_at, first_at = sequence.ended_at or time.monotonic(), sequence.first_token_at
    first_token_seconds = page.first_token_seconds
    if first_token_seconds is None and first_at is not None:
        first_token_seconds = claim.queue_seconds + first_at - sequence.submitted_at
    decoded = sequence.new_tokens - 1
    decoding_seconds = ended_at - first_at if first_at else 0.0
    metrics = Metrics(
        source=AnswerSource.JOINED if sequence.has_joined else AnswerSource.COMPUTED,
        queue_seconds=round(claim.queue_seconds, 6),
        time_to_first_token_seconds=None if first_token_seconds is None else round(first_token_seconds, 6),
        tokens_per_second=round(decoded / decoding_seconds, 3) if decoded > 0 and decoding_seconds > 0 else None,
    )
    return End(
        status=outcome.status,
        finish_reason=outcome.finish_reason,
        usage=sequence.usage,
        metrics=metrics,
        error=outcome.error,
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
