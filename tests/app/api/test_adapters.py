"""Which adapters a request chooses, by its model and by `lora`."""

from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app.access.api_key import ApiKey
from app.access.key_store import KeyStore
from app.config.params import Params
from app.config.settings import Config
from app.jobs.job import AdapterUse
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker

LORAS = {"sql": "/sql.gguf", "poems": {"path": "/poems.gguf", "scale": 0.5}}
SQL, POEMS = AdapterUse(name="sql", scale=1.0), AdapterUse(name="poems", scale=0.5)
BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
}


@pytest.fixture(scope="session")
def adapted(make_app: MakeApp, config: Config) -> FlaskClient:
    return make_app(
        replace(config, model_params=Params({"loras": LORAS}), model_aliases={"*": "default"})
    ).test_client()


@pytest.fixture(scope="session")
def strict(make_app: MakeApp, config: Config) -> FlaskClient:
    return make_app(replace(config, model_params=Params({"loras": LORAS}))).test_client()


def test_adapters_are_listed_as_models_with_their_parent(adapted: FlaskClient, redis_url: str) -> None:
    listed = adapted.get("/v1/models").get_json()["data"]
    assert [(model["id"], model["parent"]) for model in listed] == [(MODEL, None), ("sql", MODEL), ("poems", MODEL)]
    assert adapted.get("/v1/models/poems").get_json() == listed[2]


@pytest.mark.parametrize("path", BODIES)
def test_the_name_of_an_adapter_as_the_model_chooses_it_on_every_endpoint(
    adapted: FlaskClient, worker: ScriptedWorker, path: str
) -> None:
    for name, uses in {"sql": (SQL,), "poems": (POEMS,), MODEL: (), "anything": ()}.items():
        answer = adapted.post(path, json={"model": name, **BODIES[path]})
        assert (answer.status_code, answer.get_json()["model"]) == (200, name if uses else MODEL)
        assert worker.turns[-1].request.adapters == uses


def test_embeddings_take_an_adapter_as_their_model(adapted: FlaskClient, worker: ScriptedWorker) -> None:
    worker.play = lambda turn: turn.succeed(embeddings=[[1.0]])
    answer = adapted.post("/v1/embeddings", json={"model": "sql", "input": "x"})
    assert answer.get_json()["model"] == "sql" and worker.turns[-1].request.adapters == (SQL,)


@pytest.mark.parametrize(
    ("lora", "uses"),
    [
        ("sql", (SQL,)),
        ("", ()),
        ([], ()),
        ([{"id": 1}], (POEMS,)),
        ([{"id": 0, "scale": 0.0}, {"id": 1, "scale": 2}], (AdapterUse(name="poems", scale=2.0),)),
        ([{"id": "sql"}, {"id": "poems", "scale": None}], (POEMS, SQL)),
    ],
)
def test_lora_names_adapters_or_has_llama_servers_form(
    adapted: FlaskClient, worker: ScriptedWorker, lora: object, uses: tuple[AdapterUse, ...]
) -> None:
    for path, body in {
        "/generate": {"prompt": "x", "params": {"lora": lora}},
        "/v1/completions": {"prompt": "x", "lora": lora},
    }.items():
        assert adapted.post(path, json=body).status_code == 200
        assert worker.turns[-1].request.adapters == uses and "lora" not in worker.turns[-1].request.params
    adapted.post("/generate", json={"prompt": "x", "lora": lora})
    assert worker.turns[-1].request.adapters == uses


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ("sqll", "did you mean 'sql'"),
        ("nothing alike", "there are sql, poems"),
        ([{"id": 2}], "no adapter 2"),
        ([{"id": "sql"}, {"id": 0}], "twice"),
        ([{"id": "sql", "scale": 1000}], "must be"),
        ([{"name": "sql"}], "Must be the name"),
        ([{"id": "sql"}] * 9, "8 items"),
        (5, "Must be the name"),
    ],
)
def test_a_wrong_adapter_is_refused_where_it_was_sent(
    adapted: FlaskClient, redis_url: str, lora: object, reason: str
) -> None:
    answer = adapted.post("/generate", json={"prompt": "x", "params": {"lora": lora}})
    (field,) = answer.get_json()["errors"]
    assert answer.status_code == 422 and field.startswith("params.lora")
    assert reason.lower() in answer.get_json()["detail"].lower()
    error = adapted.post("/v1/completions", json={"prompt": "x", "lora": lora}).get_json()["error"]
    assert error["param"].startswith("lora")


def test_an_unknown_model_gets_404_with_the_nearest_name(strict: FlaskClient, redis_url: str) -> None:
    for path, body in BODIES.items():
        answer = strict.post(path, json={"model": "poem", **body})
        assert answer.status_code == 404
        assert answer.get_json()["error"]["message"].endswith("did you mean 'poems'?")


def test_an_adapter_as_the_model_and_lora_exclude_each_other(strict: FlaskClient, redis_url: str) -> None:
    answer = strict.post("/v1/completions", json={"model": "sql", "prompt": "x", "lora": "poems"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "lora")


def test_a_server_without_adapters_says_so(client: FlaskClient) -> None:
    answer = client.post("/generate", json={"prompt": "x", "params": {"lora": "sql"}})
    assert answer.status_code == 422 and "has no adapters" in answer.get_json()["detail"]


def test_an_api_key_knows_the_adapters_alone_that_it_may_ask_for(
    make_app: MakeApp, config: Config, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.authentication.CACHED_SECONDS", 0.0)
    http = make_app(replace(config, model_params=Params({"loras": LORAS}))).test_client()
    store = KeyStore(worker.redis)
    _, secret = store.create(ApiKey(id="", name="one", digest="", models=("poems",)))
    http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    assert [model["id"] for model in http.get("/v1/models").get_json()["data"]] == ["poems"]
    for path, body in BODIES.items():
        assert http.post(path, json={**body, "model": "poems"}).status_code == 200
        assert http.post(path, json={**body, "model": MODEL, "lora": "poems"}).status_code == 200
        assert worker.turns[-1].request.adapters == (POEMS,)
        for wrong in (
            {},
            {"model": MODEL},
            {"model": "sql"},
            {"model": "poem"},
            {"lora": [{"id": "poems", "scale": 0}]},
        ):
            refused = http.post(path, json={**body, **wrong})
            assert (refused.status_code, "sql" in refused.text and "sql" not in str(wrong)) == (404, False)
        for lora in ("sql", "sq", [{"id": 1}]):
            refused = http.post(path, json={**body, "lora": lora})
            assert refused.status_code == 400 and "there are poems." in refused.text
        assert http.post(path, json={**body, "lora": [{"id": 0}]}).status_code == 200, "its first adapter is poems"
