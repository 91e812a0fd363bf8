"""The page at `/`: the files of `app/web`, as they are there. It calls the API as any client does."""

from pathlib import Path

import flask
from flask import Response, abort, send_from_directory

import app

pages = flask.Blueprint("page", __name__)  # pages are no part of the API

WEB = Path(app.__file__).parent / "web"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Of the files that `/web/` serves; not from the machine's list of types, as a module of another type does not run."""
POLICY = (  # scripts, styles and requests of this host alone; no script makes markup of a text (trusted types)
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


@pages.get("/")
def page() -> Response:
    response = send_from_directory(WEB, "index.html", mimetype="text/html")
    response.headers["Content-Security-Policy"] = POLICY
    return response


@pages.get("/web/<name>")
def page_file(name: str) -> Response:
    """Return a file of the page. Browsers ask each time whether it has changed: modules of two releases do not mix."""
    media_type = MEDIA_TYPES.get(Path(name).suffix)
    if media_type is None:
        abort(404)
    return send_from_directory(WEB, name, mimetype=media_type)
