import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.response_headers import HEADERS
from tests.app.api.scripted_worker import ScriptedWorker


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/generate", {"prompt": "x"}, 200),
        ("POST", "/agenerate", {"prompt": "x"}, 202),
        ("POST", "/agenerate", {"prompt": "x", "stream": True}, 200),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}, 200),
        ("POST", "/generate", {}, 422),
        ("POST", "/v1/completions", {"prompt": 3}, 400),
        ("GET", "/jobs", None, 200),
        ("GET", "/check", None, 200),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/generate", None, 405),
        ("OPTIONS", "/generate", None, 200),
    ],
)
def test_every_response_has_the_headers(
    client: FlaskClient, worker: ScriptedWorker, method: str, path: str, body: object, status: int
) -> None:
    response = client.open(path, method=method, json=body)
    assert response.status_code == status
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    response.close()


def test_a_refused_key_has_the_headers_too(locked_app: Flask) -> None:
    response = locked_app.test_client().get("/jobs")
    assert response.status_code == 401
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(("path", "own"), [("/docs", "default-src 'self'"), ("/", "script-src 'self'")])
def test_a_page_may_load_its_own_files_and_be_in_no_frame(client: FlaskClient, path: str, own: str) -> None:
    response = client.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert response.mimetype == "text/html"
    assert own in policy and "frame-ancestors 'none'" in policy and "unsafe-eval" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    response.close()


def test_the_files_of_the_reference_may_be_cached(client: FlaskClient) -> None:
    response = client.get("/docs/swagger-ui.css")
    assert "max-age=86400" in response.headers["Cache-Control"] and "no-store" not in response.headers["Cache-Control"]
    response.close()
