"""What the processes of one API count."""

from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.api.metrics.process import count_request


def methods_counted(client: FlaskClient) -> set[str]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.labels["method"]
        for family in families
        if family.name == "llm_api_http_request_duration_seconds"
        for sample in family.samples
    }


def test_every_method_that_a_route_has_is_counted_by_its_name_and_any_other_as_one(
    app: Flask, client: FlaskClient
) -> None:
    methods = {method for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    assert "PATCH" in methods
    for method in methods:
        count_request(method, "/nowhere", 200, 0.1)
    assert methods <= methods_counted(client)
    for method in ("BREW", "WHEN"):
        count_request(method, "/nowhere", 200, 0.1)
    counted = methods_counted(client)
    assert "_OTHER" in counted and not counted & {"BREW", "WHEN"}
