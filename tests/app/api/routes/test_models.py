"""`/v1/models/{id}`; the list is tested with the health checks."""

from flask.testing import FlaskClient

from tests.app.api.conftest import MODEL


def test_the_served_model_is_read_by_its_name(client: FlaskClient) -> None:
    (listed,) = client.get("/v1/models").get_json()["data"]
    assert client.get(f"/v1/models/{MODEL}").get_json() == listed


def test_another_model_is_not_found_also_with_a_slash_in_its_name(client: FlaskClient) -> None:
    for name in ("gpt-4", "org/model"):
        response = client.get(f"/v1/models/{name}")
        assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
