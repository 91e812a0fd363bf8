"""Responses to what the application never sees: no HTTP request, or one that did not arrive. They look like its own."""

from http import HTTPStatus
from typing import Any

from gunicorn.http.errors import (  # type: ignore[import-untyped]
    ConfigurationProblem,
    ExpectationFailed,
    InvalidHTTPVersion,
    InvalidRequestLine,
    InvalidRequestMethod,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from app.api.json_response import JSON, PROBLEM, write_json
from app.api.problems import OPENAI_PREFIX, body_too_large, openai_error, problem
from app.api.request_body import body_limit
from app.api.response_headers import HEADERS
from app.config.settings import Config
from app.errors import (
    ExpectationUnknown,
    HeadersTooLarge,
    LLMAPIError,
    MalformedRequest,
    RequestLineTooLong,
    TransferCodingUnknown,
)

_OF_THE_SERVICE = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)
_LINE = (InvalidRequestLine, InvalidRequestMethod, InvalidHTTPVersion)


def refusal(error: LLMAPIError, path: str = "") -> bytes:
    """Return a whole response, after which the connection is closed. path: of the request, where it is known."""
    is_openais = path.startswith(OPENAI_PREFIX)
    body = write_json(openai_error(error) if is_openais else problem(error)).encode()
    headers = {
        "Connection": "close",
        "Content-Type": JSON if is_openais else PROBLEM,
        "Content-Length": str(len(body)),
        **HEADERS,
    }
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def refusal_instead_of_continue(request: Any, length: int | None, config: Config) -> bytes | None:
    """Return the response for a client that asks whether to send a body, if that is too long; else None.

    gunicorn tells it to continue before the application sees the request.
    """
    limit, key = body_limit(request.path, config)
    is_asked = any(name == "EXPECT" for name, _ in request.headers)
    return refusal(body_too_large(key), request.path) if is_asked and length is not None and length > limit else None


def error_of(fault: Exception) -> LLMAPIError:
    """Return the error for what gunicorn's parser raises; its text may hold a key, and is not shown.

    Anything else is an error of the service.
    """
    match fault:
        case LimitRequestLine():
            return RequestLineTooLong("the path and its query are too long; send the data as the body of a POST")
        case LimitRequestHeaders():
            return HeadersTooLarge("there are too many headers, or one is too long; send fewer, and shorter ones")
        case ExpectationFailed():
            return ExpectationUnknown("the only Expect that is known is 100-continue; leave the header out")
        case UnsupportedTransferCoding():
            return TransferCodingUnknown(
                "the only Transfer-Encoding that is known is chunked; send the body so, or with Content-Length"
            )
        case ParseException() if not isinstance(fault, _OF_THE_SERVICE):
            what = "request line" if isinstance(fault, _LINE) else "headers"
            return MalformedRequest(f"the {what} of the request cannot be read; send HTTP/1.1 as RFC 9112 defines it")
        case _:
            return LLMAPIError("the API failed on this request; its log says why")
