"""The metrics of one worker, on a port of its own (`worker.metrics_port`), in the text format of Prometheus.

What is counted once for each job is not here but in the API's metrics: a killed worker takes its counts with it.
"""

import logging
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.config.addresses import addresses_of, with_port
from workers.engines.runner_counts import Distribution
from workers.jobs.worker_figures import WorkerFigures

_MODEL = "model_name"

logger = logging.getLogger(__name__)


class WorkerCollector(Collector):
    """figures: called at each scrape."""

    def __init__(self, figures: Callable[[], WorkerFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        info, counts = figures.info, figures.counts
        model = info.model
        yield _gauge("llm_api_worker_slots", "Sequences at most.", model, info.slots)
        yield _gauge("llm_api_worker_running", "Sequences that run.", model, info.running)
        yield _gauge("llm_api_kv_cache_used_cells", "Cache cells of running sequences.", model, info.used_cells)
        cells = info.slots * info.context_tokens
        usage = info.used_cells / cells if cells else 0.0
        yield _gauge("llm_api_kv_cache_usage_perc", "Share of all cache cells; 1: all.", model, usage)
        yield _counter("llm_api_worker_claims", "Jobs that this worker took.", model, figures.claims)
        yield _counter("llm_api_worker_takeovers", "Jobs that it took after another.", model, figures.takeovers)
        yield _counter("llm_api_worker_quarantined", "Jobs that it ran in quarantine.", model, figures.trials)
        yield _counter("llm_api_worker_fenced_writes", "Writes of jobs that it had lost.", model, figures.fenced_writes)
        yield _histogram("llm_api_redis_round_trip_seconds", "Writes of output to Redis.", model, figures.round_trips)
        if counts is not None:
            yield _histogram("llm_api_step_seconds", "Steps of the model.", model, counts.step_seconds)
            yield _histogram("llm_api_step_rows", "Tokens that a step computes.", model, counts.step_rows)
            yield _counter("llm_api_prefix_cache_queries", "Tokens of prompts that began.", model, counts.prompt_tokens)
            yield _counter("llm_api_prefix_cache_hits", "Of these, those in the cache.", model, counts.reused_tokens)
            yield _counter("llm_api_spec_decode_num_draft_tokens", "Guessed tokens.", model, counts.drafted_tokens)
            yield _counter("llm_api_spec_decode_num_accepted_tokens", "Right guesses.", model, counts.accepted_tokens)


def serve(figures: Callable[[], WorkerFigures], host: str, port: int) -> None:
    """Serve `/metrics` in threads of their own. A port that is taken is logged, and the worker works without."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(figures))
    ProcessCollector(registry=registry)
    address = addresses_of(host)[0]
    try:
        start_http_server(port, address, registry)
    except OSError as error:
        what = f"the metrics of this worker are not served: {with_port(address, port)}: {error.strerror}"
        logger.warning("%s; set another worker.metrics_port for each worker of a machine", what)


def _gauge(name: str, meaning: str, model: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, meaning, labels=[_MODEL])
    metric.add_metric([model], value)
    return metric


def _counter(name: str, meaning: str, model: str, value: float) -> Metric:
    metric = CounterMetricFamily(name, meaning, labels=[_MODEL])
    metric.add_metric([model], value)
    return metric


def _histogram(name: str, meaning: str, model: str, distribution: Distribution) -> Metric:
    metric = HistogramMetricFamily(name, meaning, labels=[_MODEL])
    below, buckets = 0, []
    for bound, count in zip([*map(str, distribution.bounds), "+Inf"], distribution.counts, strict=True):
        below += count
        buckets.append((bound, below))
    metric.add_metric([model], buckets, distribution.total)
    return metric
