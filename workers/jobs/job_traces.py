"""The worker's part of a trace: a job's time in the queue, and its computation up to the last token.

Both spans are made when the job has ended, from the times that it has anyway: while it runs, traces cost nothing.
Imported only where traces are on.
"""

import time

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status, StatusCode

from app.jobs.job import JobRequest, Kind
from workers.jobs.running_jobs import RunningJob

_propagator = TraceContextTextMapPropagator()


class JobTraces:
    """Attributes are those of OpenTelemetry's conventions for generative AI."""

    def __init__(self, tracer: Tracer, *, model: str, worker_id: str) -> None:
        self._tracer = tracer
        self._model = model
        self._worker_id = worker_id

    def job_ended(self, job: RunningJob) -> None:
        claim, outcome, metrics = job.claim, job.outcome, job.metrics
        assert outcome is not None
        trace = _propagator.extract({"traceparent": claim.trace_parent} if claim.trace_parent else {}, Context())
        waited_from = claim.started_at - claim.queue_seconds
        waited = self._tracer.start_span(
            "queue", trace, SpanKind.INTERNAL, {"llm_api.job.id": job.id}, start_time=_nanoseconds(waited_from)
        )
        waited.end(_nanoseconds(claim.started_at))
        operation = _operation(job.request)
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            trace,
            SpanKind.CONSUMER,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": self._model,
                "gen_ai.usage.input_tokens": outcome.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": outcome.usage.completion_tokens,
                "llm_api.usage.cached_tokens": outcome.usage.cached_tokens,
                "llm_api.job.id": job.id,
                "llm_api.job.status": outcome.status.value,
                "llm_api.job.attempt": claim.attempt,
                "llm_api.worker.id": self._worker_id,
            },
            start_time=_nanoseconds(job.claimed_at),
        )
        if outcome.finish_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [outcome.finish_reason.value])
        if metrics.time_to_first_token_seconds is not None:
            first_at = waited_from + metrics.time_to_first_token_seconds
            span.add_event("first token", timestamp=_nanoseconds(first_at))
        if outcome.error is not None:
            span.set_attribute("error.type", outcome.error.code)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(time.time()))


def _operation(request: JobRequest) -> str:
    if request.kind is Kind.EMBED:
        return "embeddings"
    return "text_completion" if request.chat is None else "chat"


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
