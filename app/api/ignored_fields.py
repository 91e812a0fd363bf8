"""Tells a client what of its request was ignored, in a header of the response."""

from collections.abc import Iterable
from urllib.parse import quote

from flask import Response, after_this_request, g

HEADER = "LLM-API-Ignored"
_MOST_PATHS, _MOST_CHARACTERS = 16, 100  # of a header; paths contain names that the client chose


def report_ignored(paths: Iterable[str]) -> None:
    """Add the dotted paths of fields to the header of this request's response, percent-encoded."""
    if "ignored_fields" not in g:
        g.ignored_fields = []
        after_this_request(_add_header)
    g.ignored_fields += paths


def _add_header(response: Response) -> Response:
    paths: list[str] = g.ignored_fields
    if paths:
        shown = [quote(path[:_MOST_CHARACTERS], safe="", errors="backslashreplace") for path in paths[:_MOST_PATHS]]
        response.headers[HEADER] = ", ".join([*shown, *(["..."] if len(paths) > _MOST_PATHS else [])])
    return response
