"""The bodies that `/docs` fills in, sent to the real service."""

from typing import Any

import httpx
import pytest

from tests.stack import Stack

PATHS = [
    "/generate",
    "/agenerate",
    "/embeddings",
    "/tokenize",
    "/detokenize",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/input_tokens",
]


@pytest.fixture(scope="module")
def document(smollm2: Stack) -> dict[str, Any]:
    loaded: dict[str, Any] = httpx.get(f"{smollm2.url}/openapi.json").json()
    return loaded


@pytest.mark.parametrize("path", PATHS)
def test_the_example_of_a_body_works_on_the_default_model(
    http: httpx.Client, document: dict[str, Any], path: str
) -> None:
    response = http.post(
        path, json=document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    )
    assert response.status_code == (202 if path == "/agenerate" else 200), response.text
