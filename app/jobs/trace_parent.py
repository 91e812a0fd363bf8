"""The trace to which the jobs belong that are made now, as W3C's `traceparent`.

The record of a job keeps it, so that the worker's part of the trace continues that of the request. Nothing of
OpenTelemetry is needed here.
"""

from contextvars import ContextVar

trace_parent: ContextVar[str] = ContextVar("trace_parent", default="")
"""Empty: no request makes jobs here, or traces are off."""
