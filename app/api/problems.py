"""Writes every error body: RFC 9457 problem documents, and OpenAI's shape under /v1.

Errors of libraries become such bodies here too: werkzeug's HTTP errors, Redis' errors, and unexpected exceptions.
Codes: `app.errors`. When each 503 occurs: docs/operations.md.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any

import redis
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from app.api.json_response import JSON, PROBLEM, json_response
from app.api.path_hints import missing_path, similar_path
from app.api.redis_health import RedisAway
from app.api.request_body import BODY_LIMIT, CODINGS
from app.api.waiting.waiters import ClientGone
from app.errors import (
    BodyTooLarge,
    BudgetSpent,
    Conflict,
    InvalidRequest,
    JobCanceled,
    JobTimeout,
    LLMAPIError,
    PromptTooLong,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    UnsupportedEncoding,
    WaitTimeout,
)

OPENAI_PREFIX = "/v1/"
CLIENT_CLOSED_REQUEST = 499  # nginx's number, for the access log: the client is gone
_MAX_DRAINED_BYTES, _DRAIN_STEP_BYTES = 64 * 2**20, 2**16
_RETRY_SECONDS = 2  # Redis restarts within seconds, or for long
_OPENAI_CODES: dict[type[LLMAPIError], str] = {  # clients look for these
    PromptTooLong: "context_length_exceeded",
    Unauthorized: "invalid_api_key",
    BudgetSpent: "insufficient_quota",
}
_NOT_RETRYABLE = (
    BudgetSpent,
    Conflict,
    JobCanceled,
    JobTimeout,
    WaitTimeout,
)  # OpenAI's clients would retry these statuses

_REDIS_FAILS = "Redis answers with an error, so this cannot be done now; its log and the log of this server say more"
_REDIS_RIGHTS = "Redis rejects this server; check the user and the password in redis_url, and the rights of that user"
_REDIS_SENTENCES: dict[type[redis.RedisError], str] = {  # the first class that matches
    redis.exceptions.OutOfMemoryError: (
        "Redis is out of memory and accepts no more jobs; delete finished jobs (DELETE /jobs/{id}), lower jobs.ttl, or "
        "raise maxmemory in Redis"
    ),
    redis.exceptions.BusyLoadingError: "Redis has just started and is still loading its data; try again",
    redis.exceptions.ReadOnlyError: "Redis is a replica and accepts no writes; redis_url must name the primary",
    redis.exceptions.MasterDownError: "Redis is a replica that has lost its primary; redis_url must name the primary",
    redis.exceptions.AuthenticationError: _REDIS_RIGHTS,
    redis.exceptions.AuthorizationError: _REDIS_RIGHTS,
    redis.exceptions.NoPermissionError: _REDIS_RIGHTS,
    redis.exceptions.ResponseError: _REDIS_FAILS,
}
_REDIS_CODE_SENTENCES = {  # redis-py has no class of its own for these
    "MISCONF": (
        "Redis cannot write to its disk, so no job can be accepted; free space on the disk of Redis, or repair it (its "
        "log says what failed)"
    ),
}
_REDIS_CODE = re.compile(r"[A-Z]+\b")  # the first word of an error of the protocol: MISCONF, BUSY

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    app.register_error_handler(LLMAPIError, error_response)
    app.register_error_handler(redis.RedisError, lambda error: error_response(store_unavailable(error)))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ClientGone, lambda _: Response(status=CLIENT_CLOSED_REQUEST))
    app.register_error_handler(Exception, _unexpected)


def error_response(error: LLMAPIError, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return the response for an error. `members` extend the problem document."""
    all_headers = _headers_of(error) | dict(headers or {})
    if request.path.startswith(OPENAI_PREFIX):
        if isinstance(error, _NOT_RETRYABLE):
            all_headers["x-should-retry"] = "false"
        return json_response(openai_error(error), openai_status(error), all_headers, JSON)
    return json_response(problem(error) | members, error.status, all_headers, PROBLEM)


def problem(error: LLMAPIError) -> dict[str, Any]:
    """Return the problem document of an error."""
    document = _document(error.code, error.title, error.status, error.detail)
    if error.errors:
        document["errors"] = {path: list(messages) for path, messages in error.errors.items()}
    if isinstance(error, RateLimited):
        document["limit"] = error.limit
    if error.location is not None:
        document["location"] = error.location  # the events of a stream have no headers
    return document


def body_too_large(key: str) -> BodyTooLarge:
    """Return the error for a body that is longer than this key of the configuration allows."""
    return BodyTooLarge(f"the body is longer than {key} allows; send less")


def openai_error(error: LLMAPIError) -> dict[str, Any]:
    """Return the error body of OpenAI's API."""
    return _openai(error.detail, openai_status(error), next(iter(error.errors), None), openai_code(error))


def openai_code(error: LLMAPIError) -> str:
    """Return the code of an error in OpenAI's API, which knows three of them by other names."""
    return _OPENAI_CODES.get(type(error), error.code)


def openai_status(error: LLMAPIError) -> int:
    """Return the status of an error under /v1: OpenAI's API has no 422, a wrong field is a 400 there."""
    return 400 if isinstance(error, InvalidRequest) else error.status


def store_unavailable(error: redis.RedisError) -> StoreUnavailable:
    """Return what a caller may know about a failure of Redis: no address, no key, no value. Log the failure."""
    if not isinstance(error, RedisAway):
        logger.error("Redis failed: %s", _redis_error_name(error))
    silent = "Redis does not answer, so no job can be accepted or read; try again"
    default = silent if error.status_code is None else _REDIS_FAILS
    sentence = next((text for kind, text in _REDIS_SENTENCES.items() if isinstance(error, kind)), default)
    sentence = _REDIS_CODE_SENTENCES.get(_redis_code(error), sentence)
    return StoreUnavailable(sentence, retry_after_seconds=_RETRY_SECONDS)


def _redis_error_name(error: redis.RedisError) -> str:
    """Return the kind of a failure, for the log. Its text may contain addresses, and the prompt that was written."""
    code = error.status_code or _redis_code(error)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def _redis_code(error: redis.RedisError) -> str:
    match = _REDIS_CODE.match(str(error))
    return match.group() if match else ""


def _headers_of(error: LLMAPIError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="llm-api"'
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)  # RFC 9110, 15.5.16
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return headers


def _http_error(error: HTTPException) -> Response | HTTPException:
    if isinstance(error, RequestEntityTooLarge):
        response = error_response(body_too_large(g.get("body_limit", BODY_LIMIT)))
        body = request.environ["wsgi.input"]
        response.call_on_close(lambda: _read_the_rest(body))  # the server calls it when it has sent the response
        return response
    if error.code is None or error.code < 400:
        return error  # a redirect
    allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
    code, detail = error.name.lower().replace(" ", "_"), error.description or error.name
    similar = None
    if isinstance(error, NotFound):
        similar = similar_path(request.path, current_app.url_map)
        detail = missing_path(request, similar)
    elif isinstance(error, MethodNotAllowed):
        methods = " or ".join(method for method in error.valid_methods or () if method not in ("HEAD", "OPTIONS"))
        detail = f"this path does not accept {request.method}; use {methods}"
    if (similar or request.path).startswith(OPENAI_PREFIX):  # a client with another base URL reads this form too
        return json_response(_openai(detail, error.code, None, code), error.code, allowed)
    return json_response(_document(code, error.name, error.code, detail), error.code, allowed, PROBLEM)


def _unexpected(error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_response(LLMAPIError("the API failed on this request; its log says why"))


def _read_the_rest(body: Any) -> None:
    """Read a rejected body: a client that is still sending when the connection closes does not see the response."""
    left = _MAX_DRAINED_BYTES
    with contextlib.suppress(Exception):  # of the server: the rest may be malformed, or the client gone
        while left > 0 and (data := body.read(min(left, _DRAIN_STEP_BYTES))):
            left -= len(data)


def _document(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    return {"type": f"urn:llm-api:error:{code}", "title": title, "status": status, "detail": detail, "code": code}


def _openai(message: str, status: int, param: str | None, code: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
