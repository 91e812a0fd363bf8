"""Every error body is written here: RFC 9457 problem documents, and OpenAI's shape under /v1.

Errors of libraries are translated here too: werkzeug's HTTP errors, Redis's, and whatever nobody expected.
"""

import logging
from collections.abc import Mapping
from typing import Any

import redis
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge

from app.api import redis_errors
from app.api.json_response import JSON, PROBLEM, json_answer
from app.api.redis_health import RedisAway
from app.api.waiting.waiters import ClientGone
from app.errors import (
    BodyTooLarge,
    Conflict,
    InvalidRequest,
    JobCanceled,
    JobTimeout,
    LLMAPIError,
    PromptTooLong,
    StoreUnavailable,
    Unauthorized,
    WaitTimeout,
)

OPENAI_PREFIX = "/v1/"
CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to read it
_DRAINED_BYTES, _DRAIN_STEP_BYTES = 64 * 2**20, 2**16
_RETRY_SECONDS = 2  # Redis restarts within seconds, or for long
_OPENAI_CODES: dict[type[LLMAPIError], str] = {PromptTooLong: "context_length_exceeded"}  # clients look for these
_IN_VAIN = (Conflict, JobCanceled, JobTimeout, WaitTimeout)  # OpenAI's clients would try these again by themselves

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    app.register_error_handler(LLMAPIError, error_answer)
    app.register_error_handler(redis.RedisError, lambda error: error_answer(store_unavailable(error)))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ClientGone, lambda _: Response(status=CLIENT_CLOSED_REQUEST))
    app.register_error_handler(Exception, _unexpected)


def error_answer(error: LLMAPIError, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """The answer an error stands for; `members` extend the problem document."""
    found = _headers_of(error) | dict(headers or {})
    if request.path.startswith(OPENAI_PREFIX):
        if isinstance(error, _IN_VAIN):
            found["x-should-retry"] = "false"
        return json_answer(openai_error(error), openai_status(error), found, JSON)
    return json_answer(problem(error) | members, error.status, found, PROBLEM)


def problem(error: LLMAPIError) -> dict[str, Any]:
    """The problem document of an error."""
    document = _document(error.code, error.title, error.status, error.detail)
    if error.errors:
        document["errors"] = {path: list(messages) for path, messages in error.errors.items()}
    if error.location is not None:
        document["location"] = error.location  # the events of a stream have no headers
    return document


def openai_error(error: LLMAPIError) -> dict[str, Any]:
    code = _OPENAI_CODES.get(type(error), error.code)
    return _openai(error.detail, openai_status(error), next(iter(error.errors), None), code)


def openai_status(error: LLMAPIError) -> int:
    """OpenAI's API has no 422: its clients know a wrong field as 400."""
    return 400 if isinstance(error, InvalidRequest) else error.status


def store_unavailable(error: redis.RedisError) -> StoreUnavailable:
    """What a caller may know of a failure of Redis, which the log is told of too."""
    if not isinstance(error, RedisAway):
        logger.error("Redis failed: %s", redis_errors.name(error))
    return StoreUnavailable(redis_errors.sentence(error), retry_after_seconds=_RETRY_SECONDS)


def _headers_of(error: LLMAPIError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="llm-api"'
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return headers


def _http_error(error: HTTPException) -> Response | HTTPException:
    if isinstance(error, RequestEntityTooLarge):
        _take_in_the_rest()
        limit = g.get("body_limit", "server.max_body_bytes")
        return error_answer(BodyTooLarge(f"the body is longer than {limit} allows; send less"))
    if error.code is None or error.code < 400:
        return error  # a redirect
    allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
    code, detail = error.name.lower().replace(" ", "_"), error.description or error.name
    if isinstance(error, NotFound):
        detail = "there is no such path; /docs lists what there is"
    if request.path.startswith(OPENAI_PREFIX):
        return json_answer(_openai(detail, error.code, None, code), error.code, allowed)
    return json_answer(_document(code, error.name, error.code, detail), error.code, allowed, PROBLEM)


def _unexpected(error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_answer(LLMAPIError("the API failed on this request; its log says why"))


def _take_in_the_rest() -> None:
    """Read a body that is refused: a client that still sends when the connection closes never sees the answer."""
    left = _DRAINED_BYTES
    while left > 0 and (data := request.environ["wsgi.input"].read(min(left, _DRAIN_STEP_BYTES))):
        left -= len(data)


def _document(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    return {"type": f"urn:llm-api:error:{code}", "title": title, "status": status, "detail": detail, "code": code}


def _openai(message: str, status: int, param: str | None, code: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
