"""What is true of the whole service, read from Redis at each scrape. Names and bounds are vLLM's where it has them."""

from collections.abc import Iterator, Sequence

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.jobs import keys
from app.jobs.queue_counts import waiting_by_priority
from app.jobs.redis_client import RedisClient
from app.jobs.totals import FIRST_TOKEN_BOUNDS, REQUEST_BOUNDS, TOKEN_BOUNDS, Totals, read_totals
from app.jobs.worker_registry import WorkerState, read_workers

_MODEL = "model_name"  # the label, as vLLM calls it
_COUNTS: dict[str, tuple[str, str, Sequence[str]]] = {
    "jobs": ("llm_api_jobs", "Jobs that have ended.", ("status", "finish_reason", "kind", "priority")),
    "errors": ("llm_api_job_errors", "Jobs that have ended with an error.", ("code",)),
    "attempts": ("llm_api_job_attempts", "Times that jobs which have ended were claimed by a worker.", ()),
    "prompt_tokens": ("llm_api_prompt_tokens", "Tokens of the prompts of ended jobs.", ("source",)),
    "cached_tokens": ("llm_api_prompt_tokens_cached", "Of these, those that were not computed again.", ("source",)),
    "generation_tokens": ("llm_api_generation_tokens", "Tokens that ended jobs have generated.", ("source",)),
}
_TIMES: dict[str, tuple[str, str, Sequence[float]]] = {
    "first_token_seconds": (
        "llm_api_time_to_first_token_seconds",
        "From the creation of a job to its first token.",
        FIRST_TOKEN_BOUNDS,
    ),
    "token_seconds": (
        "llm_api_request_time_per_output_token_seconds",
        "Mean time between two tokens of a job.",
        TOKEN_BOUNDS,
    ),
    "queue_seconds": (
        "llm_api_request_queue_time_seconds",
        "From the creation of a job to its first claim.",
        REQUEST_BOUNDS,
    ),
    "request_seconds": (
        "llm_api_e2e_request_latency_seconds",
        "From the creation of a job to its end, of jobs that have succeeded or failed.",
        REQUEST_BOUNDS,
    ),
}


class ServiceCollector(Collector):
    """One model's service. While Redis does not respond, it only says so."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._redis = client
        self._model = model

    def collect(self) -> Iterator[Metric]:
        try:
            metrics = [*self._totals(), *self._queue(), *self._workers(), *self._redis_memory()]
        except redis.RedisError:
            metrics = []
        yield GaugeMetricFamily("llm_api_redis_up", "Whether Redis responds.", value=int(bool(metrics)))
        yield from metrics

    def _totals(self) -> Iterator[Metric]:
        totals = read_totals(self._redis, self._model)
        for name, (shown, meaning, labels) in _COUNTS.items():
            counter = CounterMetricFamily(shown, meaning, labels=[_MODEL, *labels])
            for values, count in totals.counts(name) or ([([], 0)] if not labels else []):
                counter.add_metric([self._model, *values], count)
            yield counter
        yield from self._times(totals)

    def _times(self, totals: Totals) -> Iterator[Metric]:
        for name, (shown, meaning, bounds) in _TIMES.items():
            distribution = totals.distribution(name, bounds)
            histogram = HistogramMetricFamily(shown, meaning, labels=[_MODEL])
            histogram.add_metric([self._model], list(distribution.buckets), distribution.total)
            yield histogram

    def _queue(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("llm_api_num_requests_waiting", "Waiting jobs.", labels=[_MODEL, "priority"])
        for priority, count in waiting_by_priority(self._redis, self._model).items():
            waiting.add_metric([self._model, priority.value], count)
        yield waiting
        for name, index, meaning in (
            ("llm_api_num_requests_running", keys.running, "Jobs that workers run."),
            ("llm_api_num_requests_scheduled", keys.scheduled, "Jobs for later, which do not wait yet."),
            ("llm_api_tenants_waiting", keys.tenants, "Tenants that have waiting jobs."),
            ("llm_api_webhooks_waiting", keys.webhooks, "Webhooks that are to be sent."),
        ):
            gauge = GaugeMetricFamily(name, meaning, labels=[_MODEL])
            gauge.add_metric([self._model], self._redis.zcard(index(self._model)))
            yield gauge

    def _workers(self) -> Iterator[Metric]:
        states = [info.state for info in read_workers(self._redis) if info.model == self._model]
        workers = GaugeMetricFamily(
            "llm_api_workers", "Workers by what they say of themselves.", labels=[_MODEL, "state"]
        )
        for state in WorkerState:
            workers.add_metric([self._model, state.value], states.count(state))
        yield workers

    def _redis_memory(self) -> Iterator[Metric]:
        memory = self._redis.execute_command("INFO", "memory")
        for name, field, meaning in (
            ("llm_api_redis_memory_used_bytes", "used_memory", "Memory that Redis uses."),
            ("llm_api_redis_memory_max_bytes", "maxmemory", "Memory that Redis may use; 0: no limit."),
        ):
            yield GaugeMetricFamily(name, meaning, value=memory[field])
