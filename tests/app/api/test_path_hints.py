import time

import pytest
from flask.testing import FlaskClient

BASE = "http://localhost/v1"


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/completions", "/v1/completions"),
        ("POST", "/responses", "/v1/responses"),
        ("GET", "/models", "/v1/models"),
        ("POST", "/v1//chat/completions", "/v1/chat/completions"),
        ("POST", "//v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/openai/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/chat/completion", "/v1/chat/completions"),
        ("GET", "/v1//files/file-1/content", "/v1/files/file-1/content"),
    ],
)
def test_a_wrong_base_url_is_answered_with_the_path_and_the_base_url_in_openais_shape(
    client: FlaskClient, method: str, path: str, right: str
) -> None:
    response = client.open(path, method=method, base_url="http://localhost/", json={})
    assert response.status_code == 404
    assert response.get_json()["error"]["message"].endswith(f"use {right}; the base URL for OpenAI's clients is {BASE}")


@pytest.mark.parametrize("path", ["/v1", "/v1/"])
def test_the_base_url_itself_is_answered_with_how_it_continues(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404 and "/v1/chat/completions" in response.text and BASE in response.text


@pytest.mark.parametrize(("path", "right"), [("/generate/", "/generate"), ("/api/generate", "/generate")])
def test_a_path_of_the_services_own_api_is_hinted_without_openais_base(
    client: FlaskClient, path: str, right: str
) -> None:
    assert client.post(path, json={}).get_json()["detail"] == f"there is no such path: use {right}"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/favicon.ico", "/.env", "/wp-login.php"])
def test_a_path_that_is_like_none_gets_no_hint(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404 and "use /" not in response.text


def test_openais_embeddings_without_v1_are_told_the_base_url(client: FlaskClient) -> None:
    response = client.post("/embeddings", json={"input": "a", "model": "m"})
    assert response.status_code == 422 and "ends in /v1" in response.get_json()["errors"]["input"][0]


def test_a_hint_for_a_very_long_path_costs_little(client: FlaskClient) -> None:
    began = time.process_time()
    for path in ("/x" * 4000, "/" + "x" * 8000, "/a" + "/" * 8000):
        assert client.get(path).status_code == 404
    assert time.process_time() - began < 1
