"""`openai.unknown_fields: ignore`, `generate.unknown_params: ignore`, and the header that names what was ignored."""

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.ignored_fields import HEADER
from app.config.settings import Config, GenerateConfig, OpenAIConfig
from tests.app.api.batches.conftest import Batches, line, make_driver
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker

MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="session")
def lenient_app(make_app: MakeApp, config: Config) -> Flask:
    return make_app(replace(config, openai=OpenAIConfig(unknown_fields="ignore")))


@pytest.fixture(scope="session")
def lenient(lenient_app: Flask) -> FlaskClient:
    return lenient_app.test_client()


def chat(client: FlaskClient, **more: Any) -> TestResponse:
    return client.post("/v1/chat/completions", json={"messages": MESSAGES, **more})


def test_unknown_fields_are_ignored_at_any_depth_and_the_header_names_them(
    lenient: FlaskClient, worker: ScriptedWorker
) -> None:
    for stream in (False, True):
        options = {"include_usage": True, "no\nsuch, name": 1} if stream else None
        response = chat(lenient, stream=stream, stream_options=options, temprature=0.5, temperature=0.1)
        assert (response.status_code, worker.turns[-1].request.params["temperature"]) == (200, 0.1)
        nested = ["stream_options.no%0Asuch%2C%20name"] if stream else []
        assert sorted(response.headers[HEADER].split(", ")) == [*nested, "temprature"]


def test_a_long_list_of_ignored_fields_is_cut_off(lenient: FlaskClient, worker: ScriptedWorker) -> None:
    response = chat(lenient, **{f"unknown{number}": 1 for number in range(1000)})
    assert (response.status_code, len(response.headers[HEADER].split(", "))) == (200, 17)


def test_a_known_field_with_a_wrong_value_is_refused_all_the_same(lenient: FlaskClient) -> None:
    error = chat(lenient, temperature="hot", unknown=1).get_json()["error"]
    assert error["param"] == "temperature"


def test_lines_of_a_batch_are_read_alike(lenient_app: Flask, lenient: FlaskClient, worker: ScriptedWorker) -> None:
    batches = Batches(lenient_app, lenient, make_driver(lenient_app))
    batch = batches.finish(batches.create(line("a", temprature=0.5)))
    response = batches.content(batch["output_file_id"])["a"]["response"]
    assert (response["status_code"], response["headers"]) == (200, {HEADER: "temprature"})


def test_by_default_and_outside_of_openais_api_an_unknown_field_is_refused(
    client: FlaskClient, lenient: FlaskClient, worker: ScriptedWorker
) -> None:
    assert chat(client, temprature=1).status_code == 400
    assert lenient.post("/generate", json={"prompt": "x", "params": {"temprature": 1}}).status_code == 422
    assert HEADER not in chat(client).headers and HEADER not in chat(lenient).headers


# --- generate.unknown_params ------------------------------------------------------------------------------------------

ANY_PARAMS = {"temprature": 0.5, "temp": 0.1, "num_beams": "many"}


def app_of_family(make_app: MakeApp, config: Config, family: str) -> FlaskClient:
    return make_app(
        replace(config, model_family=family, generate=GenerateConfig(unknown_params="ignore"))
    ).test_client()


@pytest.fixture(scope="module")
def forgiving(make_app: MakeApp, config: Config) -> FlaskClient:
    return app_of_family(make_app, config, "llama")


@pytest.mark.parametrize("path", ["/generate", "/agenerate"])
def test_parameters_that_are_unknown_are_ignored_if_the_operator_says_so(
    forgiving: FlaskClient, worker: ScriptedWorker, path: str
) -> None:
    response = forgiving.post(path, json={"prompt": "x", "n": 4, "tempp": 1, "params": ANY_PARAMS})
    assert response.status_code in (200, 202)
    assert sorted(response.headers[HEADER].split(", ")) == ["n", "params.num_beams", "params.temprature", "tempp"]
    forgiving.get(f"{response.headers['Location']}?wait=5")
    assert worker.turns[-1].request.params == {"temperature": 0.1}


def test_parameters_of_transformers_are_known_to_its_family(
    make_app: MakeApp, config: Config, worker: ScriptedWorker
) -> None:
    client = app_of_family(make_app, config, "huggingface")
    response = client.post("/generate", json={"prompt": "x", "params": {"num_beams": 4, "temprature": 1}})
    assert (response.status_code, response.headers[HEADER]) == (200, "params.temprature")
    assert worker.turns[-1].request.params == {"num_beams": 4}
    refused = client.post("/generate", json={"prompt": "x", "params": ANY_PARAMS})
    assert refused.status_code == 422 and list(refused.get_json()["errors"]) == ["params.num_beams"]


def test_a_known_parameter_with_a_wrong_value_is_refused_all_the_same(forgiving: FlaskClient) -> None:
    for body in ({"params": {"temp": "hot"}}, {"params": 1}, {"temp": "hot"}, {"params": {}, "stream": 1}):
        assert forgiving.post("/generate", json={"prompt": "x", **body}).status_code == 422
    assert forgiving.post("/generate", json={"params": {}}).status_code == 422


def test_openais_api_is_not_concerned(forgiving: FlaskClient, worker: ScriptedWorker) -> None:
    assert chat(forgiving, temprature=1).status_code == 400
    assert HEADER not in forgiving.post("/generate", json={"prompt": "x", "params": {"temp": 1}}).headers
