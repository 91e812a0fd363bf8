"""Traces of OpenTelemetry, where `traces.endpoint` is set. Without it nothing of OpenTelemetry is imported."""

from typing import TYPE_CHECKING

from app.config.settings import Config
from app.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_provider: "TracerProvider | None" = None


def tracer_of(config: Config, service: str) -> "Tracer | None":
    """Return what makes the spans of this process, and sends them in a thread of its own; None: traces are off.

    The variables of OpenTelemetry's SDK hold: `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` and so on. Call it
    after any fork.

    Args:
        service: its name in the traces.

    Raises:
        ConfigError: the packages are missing.
    """
    endpoint = config.traces.endpoint
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError("traces.endpoint needs packages that are not installed; install llm-api[otel]") from None
    global _provider
    provider = _provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider.get_tracer("llm_api")


def flush_traces() -> None:
    """Send the spans that are not sent yet. Call it before a process ends by `os._exit`."""
    if _provider is not None:
        _provider.shutdown()
