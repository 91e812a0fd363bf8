"""Metrics for Prometheus."""

from flask import Response

from app.access.api_key import Scope
from app.api.metrics.exposition import CONTENT_TYPE, exposition
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services

blueprint = Blueprint("metrics", __name__, description="For Prometheus.")
_MEDIA_TYPE = CONTENT_TYPE.partition(";")[0]


@blueprint.endpoint(
    "GET",
    "/metrics",
    scope=Scope.ADMIN,
    responses={200: describe_response("All metrics.", {_MEDIA_TYPE: {"type": "string"}})},
)
def metrics() -> Response:
    """Counts and times of jobs, the queue, workers and HTTP requests, as Prometheus reads them."""
    return Response(exposition(services().redis, services().config.model_name), content_type=CONTENT_TYPE)
