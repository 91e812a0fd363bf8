"""Tells a client what of its request was ignored, in a header of the response."""

from collections.abc import Iterable

from flask import Response, after_this_request, g

from app.api.path_header import header_value

HEADER = "Ignored-Fields"


def report_ignored(paths: Iterable[str]) -> None:
    """Add the dotted paths of fields to the header of this request's response."""
    paths = list(paths)
    if not paths:
        return
    if "ignored_fields" not in g:
        g.ignored_fields = []
        after_this_request(_add_header)
    g.ignored_fields += paths


def _add_header(response: Response) -> Response:
    response.headers[HEADER] = header_value(g.ignored_fields)
    return response
