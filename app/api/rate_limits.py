"""Requests of API keys with limits: they are counted before they are read, and their responses show what is left.

The headers are OpenAI's (`x-ratelimit-limit-requests` ...), also of errors.
"""

import contextlib
from collections.abc import Mapping

import redis
from flask import Flask, Response, request

from app.access.api_key import Limits, Scope
from app.api.access import key_if_checked
from app.jobs.limits import Allowance, RequestCounter

PREFIX = "x-ratelimit"
_CANCEL = "/cancel"  # ends work, so it is never too much


def register(app: Flask, counter: RequestCounter, scopes: Mapping[str, Scope | None]) -> None:
    """Register it after what finds the key of a request. scopes: the scope that each endpoint needs."""

    def is_counted() -> bool:
        is_work = request.method == "POST" and not request.path.endswith(_CANCEL)
        return is_work and scopes.get(request.endpoint or "") is Scope.INFERENCE

    def count() -> None:
        key = key_if_checked()
        if key is not None and key.limits.requests_per_minute is not None and is_counted():
            counter.count(key.id)

    def show(response: Response) -> Response:
        key = key_if_checked()
        limits = Limits() if key is None else key.limits
        if key is None or (limits.requests_per_minute, limits.tokens_per_minute) == (None, None) or not is_counted():
            return response
        with contextlib.suppress(redis.RedisError):  # the request itself has succeeded, or its error is reported
            state = counter.state(key.id)
            response.headers.extend(_headers("requests", state.requests) | _headers("tokens", state.tokens))
        return response

    app.before_request(count)
    app.after_request(show)


def _headers(unit: str, allowance: Allowance | None) -> dict[str, str]:
    if allowance is None:
        return {}
    return {
        f"{PREFIX}-limit-{unit}": str(allowance.limit),
        f"{PREFIX}-remaining-{unit}": str(allowance.remaining),
        f"{PREFIX}-reset-{unit}": duration(allowance.reset_seconds),
    }


def duration(seconds: float) -> str:
    """Write a time as OpenAI's API does: `6m0s`, `1.5s`, `20ms`."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
