import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from app.api.schemas.sampling import SamplingSchema


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    loaded: dict[str, Any] = client.get("/openapi.json").get_json()
    return loaded


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document, cls=OpenAPIV31SpecValidator)


def test_every_route_is_documented(client: FlaskClient, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
        if rule.rule != "/" and not rule.rule.startswith(("/static", "/docs", "/web", "/live"))
    }
    documented = {
        (path, method) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    assert documented == routes


def test_every_parameter_of_a_prompt_is_documented(document: dict[str, Any]) -> None:
    documented = document["components"]["schemas"]["Sampling"]
    assert set(documented["properties"]) == set(SamplingSchema().fields)
    assert documented["additionalProperties"] is False
    assert documented["properties"]["temperature"]["type"] == ["number", "null"]


def test_errors_are_documented_as_problem_documents(document: dict[str, Any]) -> None:
    responses = document["components"]["responses"]
    for path, item in document["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    name = response["$ref"].rpartition("/")[2]
                    (media_type,) = responses[name]["content"]
                    assert media_type == ("application/json" if path.startswith("/v1/") else "application/problem+json")


def test_every_body_in_json_has_an_example_that_its_schema_accepts(document: dict[str, Any]) -> None:
    """`/docs` fills it in. Without one it invents values for all fields, which no model accepts."""
    bodies = {
        f"{method} {path}": content["application/json"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        and "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
    }
    assert len(bodies) > 10
    for name, body in bodies.items():
        assert body.get("example"), name
        whole = {**document, **body["schema"]}
        assert [error.message for error in Draft202012Validator(whole).iter_errors(body["example"])] == [], name


def test_streams_are_documented_as_event_streams(document: dict[str, Any]) -> None:
    for path, method in (("/agenerate", "post"), ("/jobs/{job_id}/events", "get")):
        assert list(document["paths"][path][method]["responses"]["200"]["content"]) == ["text/event-stream"]


def test_every_operation_that_makes_a_job_documents_its_location(document: dict[str, Any]) -> None:
    for path in ("/generate", "/agenerate", "/embeddings"):
        responses = document["paths"][path]["post"]["responses"]
        for answer in (responses[status] for status in ("200", "202") if status in responses):
            assert "Location" in answer["headers"]
    for status in (409, 500, 504):
        assert "Location" in document["components"]["responses"][f"Problem{status}"]["headers"]


def test_the_reference_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert page.mimetype == "text/html"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 4
    for asset in assets:
        assert ":" not in asset and not asset.startswith("//")
        response = client.get(f"/{asset}")
        assert response.status_code == 200
        response.close()


def test_the_references_script_reads_this_document(client: FlaskClient) -> None:
    response = client.get("/static/docs.js")
    assert '"openapi.json"' in response.text and "http" not in response.text
    response.close()


@pytest.mark.parametrize("name", ["swagger-editor.js", "..%2f__init__.py", "nothing"])
def test_no_other_file_of_the_package_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize(
    ("schema", "path", "body", "is_valid"),
    [
        ("Generate", "/generate", {"prompt": "Hi", "messages": "anything"}, True),
        ("Generate", "/generate", {"prompt": None, "messages": [{"role": "user", "content": "Hi"}]}, True),
        ("Generate", "/generate", {"messages": [{"role": "user"}]}, False),
        ("Generate", "/generate", {"messages": []}, False),
        ("Generate", "/generate", {"prompt": None}, False),
        ("Generate", "/generate", {"prompt": "", "messages": []}, False),
        ("Completion", "/v1/completions", {"prompt": "Hi", "stream_options": None}, True),
        ("Completion", "/v1/completions", {"prompt": "Hi", "stream_options": {}, "stream": True}, True),
        ("Completion", "/v1/completions", {"prompt": "Hi", "stream_options": {}}, False),
    ],
)
def test_bodies_are_documented_as_they_are_read(
    client: FlaskClient, document: dict[str, Any], schema: str, path: str, body: dict[str, Any], is_valid: bool
) -> None:
    documented = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    assert Draft202012Validator(documented).is_valid(body) is is_valid
    response = client.post(path, json=body)
    assert response.status_code == (503 if is_valid else 400 if path.startswith("/v1") else 422), "no worker lives here"


@pytest.mark.parametrize(
    ("message", "is_valid"),
    [
        ({"role": "user", "content": "Hi"}, True),
        ({"role": "user", "content": None}, False),
        ({"role": "assistant"}, True),
        ({"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}, False),
        ({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}, True),
        ({"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f"}}]}, False),
        ({"role": "user", "content": ["Hi", {"type": "input_text", "text": "there"}]}, True),
        ({"role": "assistant", "refusal": "no"}, True),
        ({"role": "user", "content": "Hi", "refusal": "no"}, False),
        ({"role": "tool", "content": "Hi"}, True),
        ({"role": "tool", "content": {"a": [1]}}, True),
        ({"role": "function", "name": "f"}, True),
        ({"role": "user", "content": {"a": [1]}}, False),
        ({"role": "assistant", "content": 1}, False),
        ({"role": "assistant", "audio": {"id": "a1"}}, True),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, True),
        ({"role": "tool", "content": "Hi", "tool_call_id": "1"}, True),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, True),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, False),
    ],
)
def test_messages_are_documented_as_they_are_read(
    client: FlaskClient, document: dict[str, Any], message: dict[str, Any], is_valid: bool
) -> None:
    schema = {"$ref": "#/components/schemas/Message", "components": document["components"]}
    assert Draft202012Validator(schema).is_valid(message) is is_valid
    response = client.post("/generate", json={"messages": [message]})
    assert response.status_code == (503 if is_valid else 422), "no worker lives here"
