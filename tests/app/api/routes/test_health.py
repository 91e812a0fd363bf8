from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient

from app.config.settings import Config
from app.jobs import keys
from app.jobs.worker_registry import WorkerState
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, working
from tests.valkey import Valkey, running_valkey
from tests.waiting import until


@pytest.fixture
def absent(redis_url: str) -> ScriptedWorker:
    """A worker that has not announced itself yet."""
    return ScriptedWorker(redis_url, "scripted")


def test_check_is_ok(client: FlaskClient) -> None:
    response = client.get("/check")
    assert (response.get_data(), response.mimetype) == (b'"Ok"', "application/json")


def test_healthz_needs_no_redis(make_app: MakeApp, config: Config) -> None:
    app = make_app(replace(config, redis_url="redis://127.0.0.1:1/0"))
    assert app.test_client().get("/healthz").get_json() == {"status": "ok"}


def test_readyz_is_ready_once_a_worker_is(client: FlaskClient, worker: ScriptedWorker) -> None:
    body = client.get("/readyz").get_json()
    assert (body["status"], body["model"]) == ("ready", "scripted")
    (info,) = body["workers"]
    assert (info["id"], info["state"], info["detail"], info["progress"]) == ("scripted", "ready", "", None)
    assert (info["slots"], info["running"]) == (4, 0)


def test_readyz_reports_a_missing_worker(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()["code"]) == (503, "no_worker")
    assert "no worker serves 'scripted'" in response.get_json()["detail"]
    assert response.get_json()["workers"] == []


def test_readyz_shows_how_far_the_download_is(client: FlaskClient, absent: ScriptedWorker) -> None:
    absent.announce(WorkerState.LOADING, detail="fetching model.gguf", progress=0.42)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "is loading its model, 42%: fetching model.gguf" in response.get_json()["detail"]
    absent.announce(WorkerState.LOADING)
    assert client.get("/readyz").get_json()["detail"].endswith(" is loading its model")
    assert response.get_json()["workers"][0]["progress"] == 0.42


def test_readyz_shows_why_a_worker_gave_up(client: FlaskClient, absent: ScriptedWorker) -> None:
    absent.announce(WorkerState.FAILED, detail="model.gguf is no GGUF file")
    assert "has failed: model.gguf is no GGUF file" in client.get("/readyz").get_json()["detail"]


def test_readyz_shows_that_a_worker_stands_still(client: FlaskClient, absent: ScriptedWorker) -> None:
    absent.announce(WorkerState.STALLED, detail="the batch loop has stood still for 70 s")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "stalled: the batch loop has stood still for 70 s" in response.get_json()["detail"]


def test_readyz_does_not_count_workers_of_other_models(client: FlaskClient, redis_url: str) -> None:
    ScriptedWorker(redis_url, "another").announce()
    assert client.get("/readyz").status_code == 503


def test_readyz_reports_a_missing_redis(make_app: MakeApp, config: Config) -> None:
    app = make_app(replace(config, redis_url="redis://127.0.0.1:1/0"))
    response = app.test_client().get("/readyz")
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path / "valkey") as server:
        yield server


def test_readyz_names_the_full_disk_of_redis_until_there_is_room(
    make_app: MakeApp, config: Config, own_valkey: Valkey
) -> None:
    client = make_app(replace(config, redis_url=own_valkey.url)).test_client()
    ScriptedWorker(own_valkey.url, "scripted").announce()  # one that runs would be refused its next doorbell
    assert client.get("/readyz").status_code == 200
    own_valkey.fill_disk()
    until(lambda: client.get("/readyz").status_code == 503)
    for refused in (client.get("/readyz"), client.post("/generate", json={"prompt": "p"})):
        assert (refused.status_code, refused.get_json()["code"]) == (503, "store_unavailable")
        assert "cannot write to its disk" in refused.get_json()["detail"]
    own_valkey.free_disk()
    until(lambda: client.get("/readyz").status_code == 200)


def test_readyz_reports_a_redis_without_memory(make_app: MakeApp, config: Config, own_valkey: Valkey) -> None:
    client = make_app(replace(config, redis_url=own_valkey.url)).test_client()
    with working(own_valkey.url, "scripted"), redis.Redis.from_url(own_valkey.url) as raw:
        raw.config_set("maxmemory", 1)
        refused = client.get("/readyz")
        raw.config_set("maxmemory", 0)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "store_unavailable")
    assert "out of memory" in refused.get_json()["detail"]


def test_readyz_knows_at_once_that_the_only_worker_has_died(
    client: FlaskClient, absent: ScriptedWorker, redis_url: str
) -> None:
    absent.announce(has_channel=True)
    with redis.Redis.from_url(redis_url) as raw:
        connection = raw.pubsub()
        connection.subscribe(keys.worker_channel("scripted"))
        until(lambda: client.get("/readyz").status_code == 200)
        connection.close()
    until(lambda: client.get("/readyz").status_code == 503, 2)
    assert "it has died, or connects again" in client.get("/readyz").get_json()["detail"]


def test_the_model_is_listed_as_openai_does(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.announce(context_tokens=512)
    listed = client.get("/v1/models").get_json()
    (model,) = listed["data"]
    assert (listed["object"], model["object"], model["id"], model["owned_by"]) == (
        "list",
        "model",
        "scripted",
        "llm-api",
    )
    assert isinstance(model["created"], int)
    assert (model["state"], model["context_tokens"]) == ("ready", 512)


def test_the_list_shows_how_far_a_model_is(client: FlaskClient, absent: ScriptedWorker) -> None:
    assert client.get("/v1/models").get_json()["data"][0]["state"] == "absent"
    absent.announce(WorkerState.LOADING, detail="fetching", progress=0.5)
    model = client.get("/v1/models").get_json()["data"][0]
    assert (model["state"], model["detail"], model["progress"]) == ("loading", "fetching", 0.5)


def test_of_several_workers_the_best_one_gives_the_status_of_the_model(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    other = ScriptedWorker("redis://unused", "scripted")
    other.redis = worker.redis
    other.name = "another"
    other.announce(WorkerState.FAILED, detail="broken")
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/models").get_json()["data"][0]["state"] == "ready"
