"""`/v1/models/{id}`, and the other names of the model; the list is tested with the health checks."""

from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app.config.settings import Config
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker


@pytest.fixture(scope="session")
def aliased(make_app: MakeApp, config: Config) -> FlaskClient:
    aliases = {"gpt-3.5-turbo": "default", "gpt-*": MODEL}
    return make_app(replace(config, model_aliases=aliases)).test_client()


def test_the_served_model_is_read_by_its_name(client: FlaskClient) -> None:
    (listed,) = client.get("/v1/models").get_json()["data"]
    assert client.get(f"/v1/models/{MODEL}").get_json() == listed


def test_a_model_shows_the_parameters_of_a_request_that_names_none(client: FlaskClient, worker: ScriptedWorker) -> None:
    worker.announce(default_params={"max_tokens": 128, "temperature": 0.8})
    read = client.get(f"/v1/models/{MODEL}")
    assert read.get_json()["default_params"] == {"max_tokens": 128, "temperature": 0.8}
    assert '"max_tokens":128,' in read.text, "as a request sends it"


def test_another_model_is_not_found_also_with_a_slash_in_its_name(client: FlaskClient) -> None:
    for name in ("gpt-4", "org/model"):
        response = client.get(f"/v1/models/{name}")
        assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")


def test_aliases_are_listed_and_read_and_patterns_are_not(aliased: FlaskClient, redis_url: str) -> None:
    listed = aliased.get("/v1/models").get_json()["data"]
    assert [model["id"] for model in listed] == [MODEL, "gpt-3.5-turbo"]
    assert aliased.get("/v1/models/gpt-3.5-turbo").get_json() == listed[1]
    assert aliased.get("/v1/models/gpt-4o").get_json() == listed[0]
    assert aliased.get("/v1/models/claude").status_code == 404


def test_every_endpoint_serves_the_model_under_its_aliases(aliased: FlaskClient, worker: ScriptedWorker) -> None:
    bodies = {"chat/completions": {"messages": [{"role": "user", "content": "x"}]}, "completions": {}}
    for path, body in (bodies | {"responses": {"input": "x"}}).items():
        for name in ("gpt-3.5-turbo", "gpt-5", "", "default"):
            answer = aliased.post(f"/v1/{path}", json={"model": name, **body})
            assert (answer.status_code, answer.get_json()["model"]) == (200, MODEL)
        assert aliased.post(f"/v1/{path}", json={"model": "other", **body}).status_code == 404
