"""`/openapi.json`, and `/docs`: swagger-ui out of its installed package, without the internet."""

import importlib.util
from functools import cache
from pathlib import Path

import flask
from flask import Response, abort, current_app, render_template, send_from_directory

from app.api.json_response import JSON
from app.api.openapi import TITLE, Blueprint, describe_response, document

blueprint = Blueprint("openapi", __name__, description="This reference.")
pages = flask.Blueprint("docs", __name__)  # pages are no part of the API they document

ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_ASSET_SECONDS = 86_400
_POLICY = (  # nothing from elsewhere, and in no frame
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@blueprint.endpoint(
    "GET",
    "/openapi.json",
    scope=None,
    responses={200: describe_response("This API's OpenAPI 3.1 document.", {JSON: {"type": "object"}})},
)
def openapi_json() -> Response:
    """This API as an OpenAPI 3.1 document."""
    return Response(document(current_app), content_type=JSON)


@pages.get("/docs")
def docs() -> Response:
    page = Response(render_template("docs.html", title=TITLE), content_type="text/html; charset=utf-8")
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@pages.get("/docs/<name>")
def docs_asset(name: str) -> Response:
    if name not in ASSETS:
        abort(404)
    return send_from_directory(_swagger_ui(), name, max_age=_ASSET_SECONDS)


@cache
def _swagger_ui() -> Path:
    """Where the package keeps its assets; found, not imported: its code is never needed."""
    spec = importlib.util.find_spec("swagger_ui")
    assert spec is not None and spec.submodule_search_locations, "swagger-ui-py is in requirements.txt"
    return Path(spec.submodule_search_locations[0]) / "static"
