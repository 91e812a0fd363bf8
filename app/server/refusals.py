"""Responses to what the application never sees: no HTTP request, or one that did not arrive. They look like its own."""

from http import HTTPStatus

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

from app.api.json_response import PROBLEM, write_json
from app.api.problems import problem
from app.api.response_headers import HEADERS
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


def refusal(error: LLMAPIError) -> bytes:
    """Return a whole response, after which the connection is closed."""
    body = write_json(problem(error)).encode()
    headers = {"Connection": "close", "Content-Type": PROBLEM, "Content-Length": str(len(body)), **HEADERS}
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


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
