"""What gunicorn raises while the application reads a body, as responses. It is no error of the service.

gunicorn closes the connection of such a body: where the next request begins is unknown.
"""

from flask import Flask, Response
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]

from app.api.problems import CLIENT_CLOSED_REQUEST, error_response
from app.errors import MalformedRequest


def register(app: Flask) -> None:
    app.register_error_handler(ParseException, _malformed)
    app.register_error_handler(NoMoreData, lambda _: Response(status=CLIENT_CLOSED_REQUEST))


def _malformed(error: Exception) -> Response:
    detail = "the chunks of the body are malformed; send it with the header Content-Length, or as RFC 9112, 7.1, says"
    return error_response(MalformedRequest(detail))
