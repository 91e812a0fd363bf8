"""What a failure of the upstream server means to the client, and for the next attempt.

Nothing of a response's body is passed on but its error code, where that is one of the few known here.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

import openai

from app.errors import InvalidRequest, LLMAPIError, PromptTooLong, UpstreamBusy, UpstreamFailed

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
FEW_ATTEMPTS = 4  # it may be the request itself that breaks the upstream server
_BUSY = frozenset({408, 409, 425, 429, 503, 529})
_REJECTED = frozenset({400, 413, 415, 422})
_CODES_OF_EMPTY_ACCOUNTS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_CODES_OF_LONG_PROMPTS = frozenset({"context_length_exceeded", "prompt_too_long", "string_above_max_length"})


class Again(Enum):
    """Whether another attempt makes sense."""

    NEVER = 0
    A_FEW_TIMES = FEW_ATTEMPTS
    AS_LONG_AS_THERE_IS_TIME = 2**31


@dataclass(frozen=True, slots=True)
class Failure:
    """after_seconds: how long the upstream server asks its clients to wait."""

    error: LLMAPIError
    again: Again
    after_seconds: float | None = None


class BrokenResponse(Exception):
    """A stream that ended too early, or has content that OpenAI's API does not define."""


def failure_of(error: Exception) -> Failure:
    """Return what an error means. Raises `error` itself if it is not a failure of the upstream server."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APITimeoutError):
        return Failure(UpstreamFailed("the upstream server is silent"), Again.AS_LONG_AS_THERE_IS_TIME)
    if isinstance(error, openai.APIConnectionError):
        detail = "the upstream server cannot be reached, or has cut the connection"
        return Failure(UpstreamFailed(detail), Again.AS_LONG_AS_THERE_IS_TIME)
    if isinstance(error, openai.APIError | BrokenResponse):
        return Failure(UpstreamFailed("the upstream server's response broke off or is invalid"), Again.A_FEW_TIMES)
    raise error


def pause_seconds(failures: int, after_seconds: float | None) -> float:
    """Return the pause after so many failures in a row: doubled each time, spread, and at least `after_seconds`."""
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
    return max(pause, (after_seconds or 0.0) * random.uniform(1.0, 1.1))


def _of_status(error: openai.APIStatusError) -> Failure:
    status = error.status_code
    if error.code in _CODES_OF_EMPTY_ACCOUNTS:
        return _final("the account at the upstream server has no quota left: the operator must add some")
    if status in _BUSY:
        busy = UpstreamBusy(f"the upstream server is busy or limits its rate (HTTP {status}); try again later")
        return Failure(busy, Again.AS_LONG_AS_THERE_IS_TIME, _retry_after(error))
    if status >= 500:
        failed = UpstreamFailed(f"the upstream server fails on this request (HTTP {status})")
        return Failure(failed, Again.A_FEW_TIMES, _retry_after(error))
    if status in (401, 403):
        return _final(
            f"the upstream server rejects the key (HTTP {status}): the operator must set setup_params.api_key"
        )
    if status in (404, 405, 410):
        fix = "the operator must correct setup_params.base_url or setup_params.model"
        return _final(f"the upstream server has no such model or path (HTTP {status}): {fix}")
    if error.code in _CODES_OF_LONG_PROMPTS or status == 413:
        return Failure(PromptTooLong("the prompt is too long for the upstream model: shorten it"), Again.NEVER)
    if status in _REJECTED:
        detail = f"the upstream server rejects this request (HTTP {status}): it does not support one of its parameters"
        return Failure(InvalidRequest(detail), Again.NEVER)
    return _final(f"the upstream server responds with HTTP {status}, which this request does not expect")


def _final(detail: str) -> Failure:
    return Failure(UpstreamFailed(detail), Again.NEVER)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """`Retry-After` in seconds or as a date (RFC 9110); OpenAI's own `retry-after-ms`."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        seconds = headers.get("retry-after", "")
        return max(0.0, float(seconds)) if seconds else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
