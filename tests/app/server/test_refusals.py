import http.client
import io
import json

import pytest
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    ForbiddenProxyRequest,
    InvalidHeader,
    InvalidResponseHeader,
    LimitRequestHeaders,
)

from app.api.response_headers import HEADERS
from app.errors import RequestTimeout
from app.server.refusals import error_of, refusal


class Received(io.BytesIO):
    def makefile(self, *_: object) -> "Received":
        return self


def test_a_refusal_is_a_whole_response_after_which_the_connection_closes() -> None:
    response = http.client.HTTPResponse(Received(refusal(RequestTimeout("send it again — faster"))))  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    assert (response.status, response.reason, response.will_close) == (408, "Request Timeout", True)
    assert (json.loads(body)["detail"], response.headers["Content-Length"]) == (
        "send it again — faster",
        str(len(body)),
    )
    assert HEADERS.items() <= dict(response.headers).items()


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (InvalidHeader("a key"), 400),
        (ForbiddenProxyRequest("a key"), 400),
        (LimitRequestHeaders("a key"), 431),
        (InvalidResponseHeader("a key"), 500),
        (ValueError("a key"), 500),
    ],
)
def test_an_error_has_nothing_of_what_was_sent(fault: Exception, status: int) -> None:
    error = error_of(fault)
    assert error.status == status and "a key" not in error.detail
