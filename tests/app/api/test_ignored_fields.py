"""`openai.unknown_fields: ignore`, and the header that names what was ignored."""

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.ignored_fields import HEADER
from app.config.settings import Config, OpenAIConfig
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
