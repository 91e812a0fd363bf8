import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.access.api_key import ApiKey
from app.access.key_store import KeyStore
from app.api.live.queue import SHOWN
from app.api.request_context import services_of
from app.config.server import ServerConfig
from app.config.settings import AuthConfig, Config
from app.jobs import keys
from app.jobs.job import JobRequest, Kind, Priority
from app.jobs.principal import ANONYMOUS_PRINCIPAL
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.app.api.conftest import KEYS, MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.app.api.sse_reading import parse
from tests.stack import free_port
from tests.valkey import Valkey
from tests.waiting import scaled

SECRET = "the prompt of a key"
CPU_SHARE = 0.03  # of a core, for each page


class Watched:
    """The state of a live view, as the page keeps it."""

    def __init__(self, client: FlaskClient, path: str, key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.response = client.get(path, headers=headers)
        assert self.response.status_code == 200, self.response.get_data()
        self.chunks: Iterator[bytes] = iter(self.response.iter_encoded())
        self.state: dict[str, Any] = {"rows": {}}
        self.raw = ""

    def take(self) -> dict[str, Any]:
        """Take the next event into the state; return what it changed."""
        chunk = next(self.chunks).decode()
        self.raw += chunk
        (event,) = parse(chunk)
        assert event.name == "change"
        rows = self.state["rows"] | event.json.get("rows", {})
        self.state |= event.json | {"rows": rows}
        changed: dict[str, Any] = event.json
        return changed

    def until(self, condition: Any) -> dict[str, Any]:
        deadline = time.monotonic() + scaled(10)
        while not condition(self.state):
            assert time.monotonic() < deadline, self.state
            self.take()
        return self.state

    def close(self) -> None:
        self.response.close()


@pytest.fixture
def client(make_app: MakeApp, config: Config, redis_url: str) -> FlaskClient:
    """A client of an application of its own: readings are kept for a moment."""
    return make_app(config).test_client()


@pytest.fixture
def locked_app(make_app: MakeApp, config: Config, redis_url: str) -> Flask:
    return make_app(replace(config, auth=AuthConfig(api_keys=KEYS)))


@pytest.fixture
def waiting(redis_client: RedisClient) -> JobStore:
    """A store of the model, of which a worker lives that takes nothing."""
    redis_client.set(keys.alive(MODEL), "any-worker")
    return JobStore(redis_client, model=MODEL, ttl_seconds=60, max_queued=5000)


def fill(store: JobStore, count: int) -> list[str]:
    request = JobRequest(kind=Kind.GENERATE, prompt=SECRET)
    return [store.admit(request, ANONYMOUS_PRINCIPAL).id for _ in range(count)]


def test_the_queue_shows_waiting_and_running_jobs_as_they_change(client: FlaskClient, worker: ScriptedWorker) -> None:
    more = threading.Event()
    worker.play = play_of("one", "two", more, Turn.succeed)
    job = client.post("/agenerate", json={"prompt": SECRET, "priority": "high"}).get_json()["id"]
    watched = Watched(client, "/live/queue")
    watched.until(lambda state: state.get("running") == [job] and state["rows"][job]["tokens"] == 2)
    row = watched.state["rows"][job]
    assert (row["own"], row["priority"], row["attempt"]) == (True, "high", 1)
    assert watched.state["counts"] == {"waiting": 0, "running": 1, "scheduled": 0}
    more.set()
    watched.until(lambda state: state["running"] == [] and state["counts"]["running"] == 0)
    watched.close()
    assert SECRET not in watched.raw


def test_only_what_changes_is_sent(client: FlaskClient, waiting: JobStore) -> None:
    first, second = fill(waiting, 2)
    watched = Watched(client, "/live/queue")
    assert set(watched.take()) == {"counts", "waiting", "running", "starts", "rows", "batches"}
    waiting.cancel(first)
    changed = watched.take()
    assert changed["waiting"] == [second] and "rows" not in changed and "batches" not in changed
    watched.close()


def test_a_changed_priority_is_shown_while_the_job_waits(client: FlaskClient, waiting: JobStore) -> None:
    first, second = fill(waiting, 2)
    watched = Watched(client, "/live/queue")
    watched.take()
    waiting.change_priority(second, Priority.HIGH)
    watched.until(lambda state: state["waiting"] == [second, first])
    assert [watched.state["rows"][job]["priority"] for job in (first, second)] == ["normal", "high"]
    watched.close()


def test_a_long_queue_is_shown_by_its_first_jobs_and_their_number(client: FlaskClient, waiting: JobStore) -> None:
    jobs = fill(waiting, SHOWN + 20)
    watched = Watched(client, "/live/queue")
    watched.take()
    assert watched.state["waiting"] == jobs[:SHOWN]
    assert watched.state["counts"]["waiting"] == SHOWN + 20 and len(watched.state["rows"]) == SHOWN
    watched.close()


def test_jobs_of_other_keys_are_lines_without_id_owner_or_content(locked_app: Flask, waiting: JobStore) -> None:
    client = locked_app.test_client()
    mine, other = (
        client.post("/agenerate", json={"prompt": SECRET}, headers={"Authorization": f"Bearer {key}"}).get_json()["id"]
        for key in KEYS
    )
    watched = Watched(client, "/live/queue", KEYS[0])
    watched.take()
    watched.close()
    assert watched.state["waiting"][0] == mine and len(watched.state["waiting"]) == 2
    own, line = (watched.state["rows"][key] for key in watched.state["waiting"])
    assert own["own"] is True and set(line) == {"priority", "kind", "created_at", "attempt"}
    assert other not in watched.raw and SECRET not in watched.raw
    owner = services_of(locked_app).jobs.store.read(other).owner
    assert owner not in watched.raw


def test_a_job_is_opened_with_its_prompt_by_its_owner_alone(locked_app: Flask, waiting: JobStore) -> None:
    client = locked_app.test_client()
    own, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
    job = client.post("/agenerate", json={"prompt": SECRET}, headers=own).get_json()["id"]
    assert client.get(f"/live/jobs/{job}", headers=own).get_json()["request"]["prompt"] == SECRET
    refused = client.get(f"/live/jobs/{job}", headers=other)
    assert (refused.status_code, refused.get_json()["code"]) == (404, "job_not_found")
    assert SECRET not in refused.text
    assert client.get(f"/live/jobs/{job}").status_code == 401


def test_an_admin_sees_whose_each_job_is_and_may_open_it(make_app: MakeApp, config: Config, waiting: JobStore) -> None:
    auth = AuthConfig(api_keys=(KEYS[0],), admin_keys=(KEYS[1],))
    client = make_app(replace(config, auth=auth)).test_client()
    mine, admin = ({"Authorization": f"Bearer {key}"} for key in KEYS)
    job = client.post("/agenerate", json={"prompt": SECRET}, headers=mine).get_json()["id"]
    owner = client.get("/live/key", headers=mine).get_json()
    assert "admin" not in owner["scopes"] and "admin" in client.get("/live/key", headers=admin).get_json()["scopes"]
    watched = Watched(client, "/live/queue", KEYS[1])
    watched.take()
    watched.close()
    row = watched.state["rows"][job]
    assert (row["own"], row["open"], row["tenant"]) == (False, True, owner["name"])
    assert SECRET not in watched.raw
    assert client.get(f"/live/jobs/{job}", headers=admin).get_json()["request"]["prompt"] == SECRET


def test_a_view_ends_when_its_key_is_revoked(make_app: MakeApp, config: Config, redis_client: RedisClient) -> None:
    client, keys_of_redis = make_app(config).test_client(), KeyStore(redis_client)
    key, secret = keys_of_redis.create(ApiKey(id="", digest="", name="leaver"))
    watched = Watched(client, "/live/workers", secret)
    watched.take()
    keys_of_redis.revoke(key.id)
    assert list(watched.chunks) == []
    watched.close()


def test_batches_belong_to_the_view_of_their_owner(client: FlaskClient, waiting: JobStore) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}
    sent = {"purpose": "batch", "file": (io.BytesIO(json.dumps(line).encode()), "x.jsonl")}
    file = client.post("/v1/files", data=sent).get_json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=body).get_json()["id"]
    watched = Watched(client, "/live/queue")
    (shown,) = watched.take()["batches"]
    watched.close()
    assert shown["id"] == batch and shown["request_counts"] == {"total": 1, "completed": 0, "failed": 0}


def test_workers_show_slots_cells_and_state(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.announce(running=3, used_cells=70, context_tokens=100)
    watched = Watched(client, "/live/workers")
    (shown,) = watched.take()["workers"]
    watched.close()
    assert (shown["state"], shown["slots"], shown["running"]) == ("ready", 4, 3)
    assert (shown["used_cells"], shown["cells"], shown["connected"]) == (70, 400, True)


def test_a_silent_redis_is_reported_and_the_view_continues_when_it_is_back(
    make_app: MakeApp, config: Config, tmp_path: Any
) -> None:
    server = Valkey(tmp_path, free_port())
    server.start()
    client = make_app(replace(config, redis_url=server.url)).test_client()
    watched = Watched(client, "/live/queue")
    watched.take()
    server.kill()
    (trouble,) = parse(next(watched.chunks).decode())
    assert trouble.name == "trouble" and "Redis does not answer" in trouble.json["detail"]
    server.start()
    assert watched.take()["counts"] == {"waiting": 0, "running": 0, "scheduled": 0}
    watched.close()
    server.kill()


def test_a_view_ends_when_the_server_shuts_down(make_app: MakeApp, config: Config, redis_url: str) -> None:
    app = make_app(config)
    watched = Watched(app.test_client(), "/live/queue")
    watched.take()
    services_of(app).live.end()
    assert list(watched.chunks) == []
    watched.close()


def test_views_count_among_the_waiting_requests(make_app: MakeApp, config: Config, redis_url: str) -> None:
    client = make_app(replace(config, server=ServerConfig(threads=4))).test_client()
    pages = [Watched(client, "/live/queue") for _ in range(3)]
    refused = client.get("/live/queue")
    assert (refused.status_code, refused.get_json()["code"]) == (503, "too_many_waiters")
    for page in pages:
        page.close()
    Watched(client, "/live/queue").close()


def test_2000_waiting_jobs_that_move_cost_little(client: FlaskClient, waiting: JobStore) -> None:
    jobs = fill(waiting, 2000)
    watched = Watched(client, "/live/queue")
    watched.take()
    started, cpu, spent = time.monotonic(), time.thread_time(), 0.0
    for period in range(4):
        before = time.thread_time()
        for job in jobs[20 * period : 20 * period + 20]:
            waiting.cancel(job)
        spent += time.thread_time() - before
        watched.take()
    seconds = time.monotonic() - started
    watched.close()
    assert watched.state["counts"]["waiting"] == 1920
    assert (time.thread_time() - cpu - spent) / seconds < CPU_SHARE
