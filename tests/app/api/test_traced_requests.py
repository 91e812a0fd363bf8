"""Traces: one of a request, from HTTP through the queue to the last token; and nothing where they are off."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from werkzeug.test import Client

from app.api.traced_requests import TracedRequests
from app.config.observability import TracesConfig
from app.config.settings import Config, JobsConfig, WorkerConfig
from app.errors import ConfigError
from app.jobs import keys
from app.jobs.job import Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from app.jobs.trace_parent import trace_parent
from app.jobs.tracing import tracer_of
from tests.app.api.conftest import MODEL, MakeApp
from tests.engines.instant import Instant
from tests.lost_worker import lose_worker
from tests.valkey import Valkey
from tests.waiting import until
from workers.batching.runner import BatchRunner
from workers.jobs.job_traces import JobTraces
from workers.worker import Worker

SECRET = "what nobody may read"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests")


@pytest.fixture
def config(valkey: Valkey) -> Config:
    return Config(model_name=MODEL, redis_url=valkey.url, jobs=JobsConfig(ttl=60), worker=WorkerConfig(slots=2))


@pytest.fixture
def client(make_app: MakeApp, config: Config, tracer: Tracer, redis_url: str) -> Client:
    app: Flask = make_app(config)
    return Client(TracedRequests(app.wsgi_app, tracer))


@pytest.fixture
def worker(config: Config, redis_client: RedisClient, tracer: Tracer, client: Client) -> Iterator[Worker]:
    store = JobStore(redis_client, model=MODEL, ttl_seconds=60, max_queued=9)
    worker = Worker(config, redis_client, store, "host-1-a")
    worker.trace(JobTraces(tracer, model=MODEL, worker_id="host-1-a").job_ended)
    worker.serve(BatchRunner(Instant(config, lambda *_: None), config.worker, worker))
    yield worker
    worker.close()


def spans(exporter: InMemorySpanExporter, count: int) -> dict[str, ReadableSpan]:
    until(lambda: len(exporter.get_finished_spans()) >= count)
    return {span.name: span for span in exporter.get_finished_spans()}


def run(client: Client, worker: Worker, **body: object) -> None:
    """Send a request that streams, let the worker run its job, and read the stream to its end."""
    thread = Thread(target=_claim, args=[worker])
    thread.start()
    response = client.post(
        "/agenerate", json={"prompt": SECRET, "stream": True, **body}, headers={"traceparent": PARENT}
    )
    assert response.get_data()
    response.close()
    thread.join()


def _claim(worker: Worker) -> None:
    def claimed() -> bool:
        worker.claim_next()
        return worker.figures.claims > 0

    until(claimed)


def test_one_trace_leads_from_the_request_through_the_queue_to_the_last_token(
    client: Client, worker: Worker, exporter: InMemorySpanExporter
) -> None:
    run(client, worker, params={"max_tokens": 3})
    made = spans(exporter, 3)
    request, waited, computed = made["POST /agenerate"], made["queue"], made[f"text_completion {MODEL}"]
    assert {span.context.trace_id for span in made.values()} == {int(PARENT.split("-")[1], 16)}
    assert request.parent is not None and request.parent.span_id == int(PARENT.split("-")[2], 16)
    for span in (waited, computed):
        assert span.parent is not None and span.parent.span_id == request.context.span_id
        assert span.start_time is not None and request.start_time is not None
        assert span.start_time > request.start_time - 10_000_000  # the clock is that of Redis
    assert waited.end_time is not None and computed.end_time is not None
    assert waited.end_time <= computed.end_time
    attributes = dict(computed.attributes or {})
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["llm_api.job.id"] == dict(request.attributes or {})["llm_api.job.id"]
    assert [event.name for event in computed.events] == ["first token"]
    assert dict(request.attributes or {})["http.response.status_code"] == 200
    assert SECRET not in "".join(span.to_json() for span in made.values())


def test_a_job_that_a_second_worker_ends_is_in_the_same_trace(
    client: Client, worker: Worker, exporter: InMemorySpanExporter, redis_url: str, redis_client: RedisClient
) -> None:
    made = client.post("/agenerate", json={"prompt": SECRET}, headers={"traceparent": PARENT})
    job_id = (made.get_json() or {})["id"]
    made.close()
    store = JobStore(redis_client, model=MODEL, ttl_seconds=60, max_queued=9)
    assert store.claim("host-2-b") is not None
    lose_worker(redis_url, job_id, model=MODEL)
    worker.claim_next()
    until(lambda: store.read(job_id).status is Status.SUCCEEDED)
    computed = spans(exporter, 3)[f"text_completion {MODEL}"]
    assert dict(computed.attributes or {})["llm_api.job.attempt"] == 2
    assert computed.context.trace_id == int(PARENT.split("-")[1], 16)


def test_a_request_without_a_trace_begins_one_and_a_malformed_one_is_ignored(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    for header in ({}, {"traceparent": "x" * 5000}):
        client.get("/nowhere", headers=header).close()
    made = exporter.get_finished_spans()
    assert [span.name for span in made] == ["GET", "GET"]
    assert all(span.parent is None for span in made)
    assert len({span.context.trace_id for span in made}) == 2


def test_jobs_of_the_next_request_of_a_thread_are_not_in_the_trace_of_the_last(client: Client) -> None:
    client.get("/healthz").close()
    assert trace_parent.get() == ""


def test_without_traces_a_record_has_no_parent(
    make_app: MakeApp, config: Config, redis_client: RedisClient, worker: Worker
) -> None:
    made = make_app(config).test_client().post("/agenerate", json={"prompt": "x"}, headers={"traceparent": PARENT})
    assert redis_client.hget(keys.job(made.get_json()["id"]), "trace_parent") is None


def test_without_an_endpoint_api_and_worker_need_nothing_of_opentelemetry(valkey: Valkey) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import app.server.gunicorn_settings, app.server.wsgi, workers.main\n"
        "assert not {'app.api.traced_requests', 'workers.jobs.job_traces'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env={"LLM_API_REDIS_URL": valkey.url}, check=True)


def test_with_an_endpoint_and_without_the_packages_the_start_says_what_to_install(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"traces\.endpoint needs .* llm-api\[otel\]"):
        tracer_of(replace(config, traces=TracesConfig(endpoint="http://127.0.0.1:1/v1/traces")), "x")


def test_spans_are_sent_to_the_endpoint() -> None:
    received: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(f"{self.path} {self.headers['Content-Type']}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        program = (
            "from app.config.settings import Config; from app.config.observability import TracesConfig; "
            "from app.jobs.tracing import flush_traces, tracer_of; "
            f"tracer = tracer_of(Config(model_name='m', traces=TracesConfig(endpoint={endpoint!r})), 'x'); "
            "tracer.start_span('one').end(); flush_traces()"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        server.shutdown()
    assert received == ["/v1/traces application/x-protobuf"]


def test_traces_are_off_by_default() -> None:
    assert tracer_of(Config(model_name="m", traces=TracesConfig()), "x") is None
