"""Keywords that no grammar holds: with `strict` the request is refused, without it a header names them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.openai.unenforced import HEADER
from app.api.path_header import header_value
from app.config.settings import Config
from tests.app.api.conftest import MakeApp
from tests.app.api.scripted_worker import ScriptedWorker

SET = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
ARGUMENTS = {"type": "object", "properties": {"ids": SET, "path": {"type": "string", "format": "path"}}}
ANSWER = {"type": "json_schema", "json_schema": {"name": "ids", "schema": ARGUMENTS}}
PLAIN = {"type": "function", "function": {"name": "plain", "parameters": {"type": "object"}}}


def tool(*, strict: bool = False) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look_up", "parameters": ARGUMENTS, "strict": strict}}


def chat(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}], **body})


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"response_format": ANSWER}, "response_format.properties.ids.uniqueItems"),
        ({"response_format": ANSWER, "stream": True}, "response_format.properties.ids.uniqueItems"),
        ({"json_schema": SET}, "json_schema.uniqueItems"),
        ({"guided_json": SET}, "guided_json.uniqueItems"),
        ({"structured_outputs": {"json": SET}}, "structured_outputs.json.uniqueItems"),
        ({"tools": [PLAIN, tool()], "tool_choice": "required"}, "tools.look_up.parameters.properties.ids.uniqueItems"),
        ({"tools": [tool()]}, None),
        (
            {"tools": [PLAIN, tool()], "response_format": {"type": "json_object"}},
            "tools.look_up.parameters.properties.ids.uniqueItems",
        ),
        ({"tools": [{**PLAIN, "function": {**PLAIN["function"], "strict": True}}]}, "tools.plain.strict"),
        ({"response_format": {"type": "json_object"}}, None),
        ({}, None),
    ],
)
def test_a_header_names_what_a_chat_is_not_made_to_follow(
    client: FlaskClient, worker: ScriptedWorker, body: dict[str, Any], paths: str | None
) -> None:
    response = chat(client, **body)
    assert response.status_code == 200, response.text
    assert response.headers.get(HEADER) == paths


@pytest.mark.parametrize(
    ("path", "body", "paths"),
    [
        ("/generate", {"prompt": "Hello", "params": {"json_schema": SET}}, "params.json_schema.uniqueItems"),
        ("/agenerate", {"prompt": "Hello", "params": {"json_schema": SET}}, "params.json_schema.uniqueItems"),
        ("/generate", {"prompt": "Hello", "guided_json": SET}, "guided_json.uniqueItems"),
        ("/v1/completions", {"prompt": "Hello", "json_schema": SET}, "json_schema.uniqueItems"),
        ("/v1/completions", {"prompt": "Hello", "guided_json": SET}, "guided_json.uniqueItems"),
        (
            "/v1/completions",
            {"prompt": "Hello", "response_format": ANSWER},
            "response_format.properties.ids.uniqueItems",
        ),
        (
            "/v1/completions",
            {"prompt": "Hello", "structured_outputs": {"json": SET}},
            "structured_outputs.json.uniqueItems",
        ),
        (
            "/v1/responses",
            {"input": "Hello", "text": {"format": {"type": "json_schema", "name": "ids", "schema": ARGUMENTS}}},
            "text.format.properties.ids.uniqueItems",
        ),
        (
            "/v1/responses",
            {
                "input": "Hello",
                "background": True,
                "tools": [{"type": "function", **tool()["function"]}],
                "tool_choice": {"type": "function", "name": "look_up"},
            },
            "tools.look_up.parameters.properties.ids.uniqueItems",
        ),
    ],
)
def test_a_header_names_it_wherever_a_schema_may_come(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: dict[str, Any], paths: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code in (200, 202), response.text
    assert response.headers.get(HEADER) == paths


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (
            "/v1/chat/completions",
            {"tools": [PLAIN, tool(strict=True)]},
            "tools.1.function.parameters.properties.ids.uniqueItems",
        ),
        (
            "/v1/chat/completions",
            {"response_format": {**ANSWER, "json_schema": {**ANSWER["json_schema"], "strict": True}}},
            "response_format.json_schema.schema.properties.ids.uniqueItems",
        ),
        (
            "/v1/responses",
            {"tools": [{"type": "function", **tool(strict=True)["function"]}]},
            "tools.0.parameters.properties.ids.uniqueItems",
        ),
        (
            "/v1/responses",
            {"text": {"format": {"type": "json_schema", "name": "ids", "schema": ARGUMENTS, "strict": True}}},
            "text.format.schema.properties.ids.uniqueItems",
        ),
    ],
)
def test_strict_refuses_it_and_names_the_tool_and_the_path(
    client: FlaskClient, worker: ScriptedWorker, path: str, body: Mapping[str, Any], param: str
) -> None:
    prompt = {"input": "Hello"} if path.endswith("responses") else {"messages": [{"role": "user", "content": "Hi"}]}
    response = client.post(path, json={**prompt, **body})
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert ("look_up" if "tools" in body else "ids") in error["message"]
    assert worker.turns == []


def test_the_worker_gets_the_schema_as_it_was_sent(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert chat(client, json_schema=SET).status_code == 200
    assert worker.turns[0].request.params["json_schema"] == SET


def test_a_family_that_forwards_leaves_it_to_the_other_server(
    make_app: MakeApp, config: Config, worker: ScriptedWorker
) -> None:
    client = make_app(replace(config, model_family="openai")).test_client()
    response = chat(client, response_format=ANSWER)
    assert response.status_code == 200
    assert HEADER not in response.headers


def test_a_header_holds_any_name_and_not_too_many() -> None:
    assert header_value([]) == ""
    assert header_value(["a.$defs.b_c-d", "a\r\nSet-Cookie: x,é"]) == "a.$defs.b_c-d, a%0D%0ASet-Cookie%3A%20x%2C%C3%A9"
    assert header_value(f"a{index}" for index in range(20)).endswith("a15, ...")
    assert len(header_value(["a" * 10_000])) <= 200
