"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, with workers that load what Redis has for them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.config.adapters import AdaptersConfig
from app.config.params import Params
from app.config.settings import AuthConfig, Config
from app.jobs.adapter_registry import AdapterRegistry
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, read_workers
from tests.app.api.conftest import KEYS, MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker
from tests.waiting import until

LORAS = {"poems": "/poems.gguf"}
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def loading_config(config: Config) -> Config:
    return replace(
        config,
        model_params=Params({"loras": LORAS}),
        model_aliases={"gpt": "default"},
        adapters=AdaptersConfig(runtime_loading=True),
    )


@pytest.fixture(scope="module")
def http(make_app: MakeApp, loading_config: Config) -> FlaskClient:
    return make_app(loading_config).test_client()


@pytest.fixture
def registry(redis_client: RedisClient) -> AdapterRegistry:
    return AdapterRegistry(redis_client, MODEL)


Answers = Callable[..., None]


@pytest.fixture
def answer(registry: AdapterRegistry, redis_client: RedisClient) -> Iterator[Answers]:
    """A function that starts a worker, which loads every adapter but those with its `fault` in their source."""
    stopping, threads = threading.Event(), list[threading.Thread]()

    def run(name: str, fault: str) -> None:
        while not stopping.wait(0.01):
            states = {one.version: "it is damaged" if fault in one.source else "" for one in registry.all()}
            announce(
                redis_client,
                WorkerInfo(id=name, model=MODEL, family="x", state=WorkerState.READY, adapters=states, slots=1),
            )

    def start(name: str = "scripted", fault: str = "damaged") -> None:
        threads.append(threading.Thread(target=run, args=[name, fault]))
        threads[-1].start()
        until(lambda: any(one.id == name for one in read_workers(redis_client)))

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


def load(http: FlaskClient, name: str = "sql", path: str = "sql.gguf", **more: Any) -> TestResponse:
    return http.post(LOAD, json={"lora_name": name, "lora_path": path, **more})


def unload(http: FlaskClient, name: str = "sql") -> TestResponse:
    return http.post(UNLOAD, json={"lora_name": name})


def error_of(response: TestResponse) -> tuple[int, str, str]:
    error = response.get_json()["error"]
    return response.status_code, error["code"], error["param"]


def complete(http: FlaskClient, **body: Any) -> TestResponse:
    return http.post("/v1/completions", json={"prompt": "x", **body})


def test_an_adapter_is_chosen_from_its_load_until_its_unload_with_vllms_replies(
    http: FlaskClient, worker: ScriptedWorker, answer: Answers
) -> None:
    answer()
    assert complete(http, model="sql").status_code == 404
    loaded = load(http)
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'sql' added successfully.")
    assert loaded.content_type.startswith("text/plain")
    listed = [(one["id"], one["parent"]) for one in http.get("/v1/models").get_json()["data"]]
    assert listed == [(MODEL, None), ("gpt", None), ("poems", MODEL), ("sql", MODEL)]
    assert http.get("/v1/models/sql").get_json()["parent"] == MODEL
    for body in ({"model": "sql"}, {"lora": "sql"}, {"lora": [{"id": 1}]}):
        assert complete(http, **body).status_code == 200
        (use,) = worker.turns[-1].request.adapters
        assert (use.name, use.scale, len(use.version)) == ("sql", 1.0, 16)
    removed = unload(http)
    assert (removed.status_code, removed.text) == (200, "Success: LoRA adapter 'sql' removed successfully.")
    assert complete(http, model="sql").status_code == 404
    assert error_of(unload(http)) == (404, "model_not_found", "lora_name")


def test_an_adapter_is_loaded_twice_only_in_place_and_then_has_another_version(
    http: FlaskClient, worker: ScriptedWorker, answer: Answers
) -> None:
    answer()
    load(http)
    assert error_of(load(http)) == (400, "invalid_request", "lora_name")
    versions = set()
    for _ in range(2):
        complete(http, model="sql")
        versions |= {use.version for use in worker.turns[-1].request.adapters}
        assert load(http, load_inplace=True).status_code == 200
    assert len(versions) == 2


def test_a_damaged_file_is_a_400_with_the_workers_reason_and_what_was_served_before_stays(
    http: FlaskClient, registry: AdapterRegistry, answer: Answers
) -> None:
    answer()
    refused = load(http, path="damaged.gguf")
    assert error_of(refused) == (400, "invalid_request", "lora_path") and "it is damaged" in refused.text
    assert registry.all() == []
    load(http)
    assert load(http, path="damaged.gguf", load_inplace=True).status_code == 400
    assert [one.source for one in registry.served()] == ["sql.gguf"]


def test_an_adapter_is_served_when_all_workers_have_it(
    http: FlaskClient, registry: AdapterRegistry, answer: Answers
) -> None:
    answer("one")
    answer("two", fault="sql")
    assert error_of(load(http)) == (400, "invalid_request", "lora_path")
    assert registry.all() == []
    assert load(http, path="other.gguf").status_code == 200


@pytest.mark.parametrize("state", [WorkerState.LOADING, WorkerState.READY])
def test_a_load_that_workers_do_not_end_in_time_is_taken_back(
    http: FlaskClient,
    registry: AdapterRegistry,
    redis_client: RedisClient,
    monkeypatch: pytest.MonkeyPatch,
    state: WorkerState,
) -> None:
    monkeypatch.setattr("app.api.adapter_loading.LOAD_SECONDS", 0.1)
    announce(redis_client, WorkerInfo(id="slow", model=MODEL, family="x", state=state))
    assert error_of(load(http)) == (504, "wait_timeout", None)
    assert registry.all() == []


def test_without_a_worker_nothing_is_loaded(http: FlaskClient, registry: AdapterRegistry) -> None:
    assert error_of(load(http)) == (503, "no_worker", None)
    assert registry.all() == []


@pytest.mark.parametrize("name", [MODEL, "gpt", "default", "poems"])
def test_names_of_the_model_and_of_configured_adapters_are_taken(
    http: FlaskClient, registry: AdapterRegistry, name: str
) -> None:
    for more in ({}, {"load_inplace": True}):
        assert error_of(load(http, name, **more)) == (400, "invalid_request", "lora_name")
    assert registry.all() == []
    assert unload(http, "poems").status_code == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"lora_path": "x"}, "lora_name"),
        ({"lora_name": "x"}, "lora_path"),
        ({"lora_name": "", "lora_path": "x"}, "lora_name"),
        ({"lora_name": "a\nb", "lora_path": "x"}, "lora_name"),
        ({"lora_name": " a", "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x" * 2000, "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x", "lora_path": "a\0b"}, "lora_path"),
        ({"lora_name": "x", "lora_path": ["x"]}, "lora_path"),
        ({"lora_name": "x", "lora_path": "x", "load_inplace": "yes"}, "load_inplace"),
        ({"lora_name": "x", "lora_path": "x", "rank": 8}, "rank"),
    ],
)
def test_a_malformed_body_is_refused_by_field(
    http: FlaskClient, redis_url: str, body: dict[str, Any], param: str
) -> None:
    assert error_of(http.post(LOAD, json=body))[::2] == (400, param)


def test_it_is_off_by_default(client: FlaskClient) -> None:
    for response in (load(client), unload(client)):
        assert error_of(response)[:2] == (403, "not_enabled") and "adapters.runtime_loading" in response.text


def test_it_needs_an_api_key_with_the_scope_admin_where_there_are_any(
    make_app: MakeApp, loading_config: Config, redis_url: str
) -> None:
    keys = AuthConfig(api_keys=KEYS, admin_keys=("an-admins-key",))
    http = make_app(replace(loading_config, auth=keys)).test_client()
    for call in (load, unload):
        assert call(http).status_code == 401
    http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEYS[0]}"
    assert [error_of(call(http))[:2] for call in (load, unload)] == [(403, "missing_scope")] * 2
    http.environ_base["HTTP_AUTHORIZATION"] = "Bearer an-admins-key"
    assert [call(http).status_code for call in (load, unload)] == [503, 404], "there is no worker, and no adapter"
