import logging
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app import errors
from app.config.settings import AuthConfig, Config
from tests.app.api.conftest import MakeApp

ROOT = {"Authorization": "Bearer root"}


def test_an_unknown_path_is_a_problem_document(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert response.get_json() == {
        "type": "urn:llm-api:error:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no such path; /docs lists the paths",
        "code": "not_found",
    }


def test_a_wrong_method_is_a_problem_document_that_names_the_allowed_ones(client: FlaskClient) -> None:
    response = client.get("/generate")
    assert (response.status_code, response.get_json()["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}
    assert response.get_json()["detail"] == "this path does not accept GET; use POST"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nowhere"), ("DELETE", "/v1/models")])
def test_under_v1_errors_have_openais_shape(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(path, method=method)
    assert response.mimetype == "application/json"
    assert set(response.get_json()) == {"error"}
    assert set(response.get_json()["error"]) == {"message", "type", "param", "code"}


def test_an_unexpected_exception_is_logged_and_not_shown(
    make_app: MakeApp, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(replace(config, redis_url="redis://127.0.0.1:1/0", auth=AuthConfig(admin_keys=("root",))))

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("the password is 1234")

    with caplog.at_level(logging.ERROR):
        response = app.test_client().get("/broken", headers=ROOT)
    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert "1234" not in response.text
    assert "1234" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize("cls", [errors.QueueFull, errors.PromptTooLong, errors.EngineFailed, errors.JobTimeout])
def test_every_error_of_the_tree_becomes_its_status(
    make_app: MakeApp, config: Config, cls: type[errors.LLMAPIError]
) -> None:
    app = make_app(replace(config, redis_url="redis://127.0.0.1:1/0", auth=AuthConfig(admin_keys=("root",))))

    @app.get("/broken")
    def broken() -> str:
        raise cls("like this", errors={"a.b": ["one", "two"]}, retry_after_seconds=7)

    response = app.test_client().get("/broken", headers=ROOT)
    assert response.status_code == cls.status
    assert response.headers["Retry-After"] == "7"
    assert response.get_json() == {
        "type": f"urn:llm-api:error:{cls.code}",
        "title": cls.title,
        "status": cls.status,
        "detail": "like this",
        "code": cls.code,
        "errors": {"a.b": ["one", "two"]},
    }
