"""A span for each request, from its arrival to the last byte of its response. Imported only where traces are on."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status, StatusCode

from app.api.request_notes import notes_of
from app.jobs.trace_parent import trace_parent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_propagator = TraceContextTextMapPropagator()


class TracedRequests:
    """A WSGI application around another. A span continues the trace that the client's `traceparent` names.

    Attributes are those of OpenTelemetry's HTTP conventions. The path and the query are not among them.
    """

    def __init__(self, application: "WSGIApplication", tracer: Tracer) -> None:
        self._application = application
        self._tracer = tracer

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        given = {
            name: environ[f"HTTP_{name.upper()}"]
            for name in ("traceparent", "tracestate")
            if f"HTTP_{name.upper()}" in environ
        }
        span = self._tracer.start_span(
            method, _propagator.extract(given), SpanKind.SERVER, {"http.request.method": method}
        )
        trace_parent.set(_header_of(span))

        def start(status: str, *more: Any) -> Any:
            code = int(status.partition(" ")[0])
            span.set_attribute("http.response.status_code", code)
            if code >= 500:
                span.set_status(Status(StatusCode.ERROR))
            return start_response(status, *more)

        def end() -> None:
            _describe(span, environ)
            span.end()
            trace_parent.set("")  # this thread serves other requests next

        try:
            body = self._application(environ, start)
        except BaseException:
            end()
            raise
        return _Body(body, end)


class _Body:
    """The body of a response. The server closes it when the last byte has been sent, or cannot be."""

    def __init__(self, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._body = body
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._end()


def _header_of(span: Span) -> str:
    """Return the span as a `traceparent`."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent", "")


def _describe(span: Span, environ: "WSGIEnvironment") -> None:
    notes = notes_of(environ)
    if notes is None:
        return
    if notes.route:
        span.update_name(f"{environ['REQUEST_METHOD']} {notes.route}")
        span.set_attribute("http.route", notes.route)
    span.set_attribute("llm_api.request.id", notes.request_id)
    if notes.job_id is not None:
        span.set_attribute("llm_api.job.id", notes.job_id)
