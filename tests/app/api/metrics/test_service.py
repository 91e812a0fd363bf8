"""`/metrics`: what is true of the whole service."""

from dataclasses import replace

from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.config.observability import MetricsConfig
from app.config.settings import AuthConfig, Config
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of

Samples = dict[tuple[str, ...], float]


def samples(client: FlaskClient) -> Samples:
    """Return the values by name and values of labels, those of the model left out."""
    response = client.get("/metrics")
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    families = list(text_string_to_metric_families(response.text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type != "unknown" for family in families)
    read: Samples = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
        key = (sample.name, *labels.values())
        assert key not in read
        read[key] = sample.value
    return read


def by_label(read: Samples, name: str) -> dict[str, float]:
    return {key[1]: value for key, value in read.items() if key[0] == name}


def test_jobs_and_tokens_are_those_of_the_jobs_that_have_ended(client: FlaskClient, worker: ScriptedWorker) -> None:
    for _ in range(2):
        client.post("/generate", json={"prompt": "x", "priority": "low"})
    worker.play = play_of(lambda turn: turn.fail("engine_error", "it broke"))
    client.post("/generate", json={"prompt": "x"})
    worker.play = play_of(lambda turn: Turn.succeed(turn, embeddings=[[1.0]]))
    client.post("/v1/embeddings", json={"input": "x"})
    read = samples(client)
    jobs = {key[1:]: value for key, value in read.items() if key[0] == "llm_api_jobs_total"}
    assert jobs == {
        ("stop", "generate", "low", "succeeded"): 2,
        ("-", "generate", "normal", "failed"): 1,
        ("stop", "embed", "normal", "succeeded"): 1,
    }
    assert read["llm_api_job_errors_total", "engine_error"] == 1
    assert read["llm_api_prompt_tokens_total", "computed"] == 4 * 3
    assert read["llm_api_generation_tokens_total", "computed"] == 2 * 2
    assert read["llm_api_prompt_tokens_cached_total", "computed"] == 4 * 2
    assert read["llm_api_job_attempts_total",] == 4
    assert read["llm_api_e2e_request_latency_seconds_count",] == 4
    assert read["llm_api_e2e_request_latency_seconds_bucket", "+Inf"] == 4
    assert read["llm_api_request_queue_time_seconds_count",] == 4


def test_the_queue_is_shown_by_priority_and_workers_by_state(client: FlaskClient, redis_client: RedisClient) -> None:
    announce(redis_client, WorkerInfo(id="h-1-a", model=MODEL, family="f", state=WorkerState.DRAINING))
    announce(redis_client, WorkerInfo(id="h-2-b", model="another", family="f", state=WorkerState.READY))
    for priority in ("low", "normal", "low"):
        assert client.post("/agenerate", json={"prompt": "x", "priority": priority}).status_code == 202
    running = JobStore(redis_client, model=MODEL, ttl_seconds=60, max_queued=9).claim("h-1-a")
    assert running is not None
    read = samples(client)
    assert read["llm_api_num_requests_running",] == read["llm_api_tenants_waiting",] == 1
    assert read["llm_api_num_requests_scheduled",] == 0
    assert by_label(read, "llm_api_num_requests_waiting") == {"high": 0, "normal": 0, "low": 2}
    assert by_label(read, "llm_api_workers") == dict.fromkeys(WorkerState, 0) | {"draining": 1}
    assert read["llm_api_redis_up",] == 1
    assert read["llm_api_redis_memory_used_bytes",] > read["llm_api_redis_memory_max_bytes",] == 0


def test_while_redis_does_not_respond_the_metrics_say_so_and_those_of_the_api_stay(
    make_app: MakeApp, config: Config
) -> None:
    client = make_app(
        replace(config, redis_url="redis://127.0.0.1:1/0", metrics=MetricsConfig(open=True))
    ).test_client()
    read = samples(client)
    assert read["llm_api_redis_up",] == 0
    assert not any(name[0].startswith("llm_api_jobs") for name in read)
    assert any(name[0].startswith("llm_api_redis_round_trip_seconds") for name in read)


def test_with_api_keys_the_metrics_need_one_unless_they_are_open(make_app: MakeApp, config: Config) -> None:
    locked = replace(config, auth=AuthConfig(api_keys=("first-key",)))
    assert make_app(locked).test_client().get("/metrics").status_code == 401
    opened = make_app(replace(locked, metrics=MetricsConfig(open=True))).test_client()
    assert opened.get("/metrics").status_code == 200
    assert opened.get("/metrics/").status_code == 401
