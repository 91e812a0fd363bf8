"""The limits of an API key: what its requests are counted for, and what it gets when one is reached.

`lua/limits.lua` counts: jobs and tokens in the step that admits a job and in the one that ends it, requests by
`RequestCounter`. docs/decisions/0067 has the reasons.
"""

import math
from dataclasses import dataclass, replace

from app.errors import BudgetSpent, InvalidRequest, RateLimited
from app.jobs.job import JobRequest, Kind
from app.jobs.redis_client import RedisClient, script
from app.jobs.sampling import MAX_TOKENS
from app.jobs.sharing import estimated_prompt_tokens

COMPLETION_ESTIMATE = 256  # tokens that a job writes at most, as far as is known before its end
DEFAULT_MAX_TOKENS = 128  # of a request that names none, as in every family
BATCH_SHARE = 0.5  # of what may run and wait at once, and of a minute: requests of the same key find the rest
_CURES = {
    "concurrent_jobs": "of this API key run or wait; wait until one has ended",
    "waiting_jobs": "of this API key wait; wait until one has started",
    "tokens_per_minute": "a minute are used; send less at once, or ask for fewer max_tokens",
    "requests_per_minute": "a minute are used; send less often",
    "tokens_per_day": "of the day are used; it ends at midnight UTC",
    "tokens_per_month": "of the month are used; it ends on its last midnight UTC",
}
_UNITS = {"concurrent_jobs": "jobs", "waiting_jobs": "jobs", "requests_per_minute": "requests"}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a minute. reset_seconds: until all of it is left again."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class MinuteState:
    """What a key may still do in this minute. None: no such limit."""

    requests: Allowance | None
    tokens: Allowance | None


class RequestCounter:
    """Counts the requests of keys, for all processes."""

    def __init__(self, client: RedisClient) -> None:
        self._count = script(client, "count_request")

    def count(self, owner: str) -> None:
        """Count a request of this key. Raises RateLimited."""
        seconds, limit, *_ = self._count(keys=[], args=[owner, "1"])
        if float(seconds) > 0:
            raise limit_error("requests_per_minute", limit, math.ceil(float(seconds)))

    def state(self, owner: str) -> MinuteState:
        _, *values = self._count(keys=[], args=[owner, "0"])
        return MinuteState(_allowance(*values[:3]), _allowance(*values[3:]))


def limit_error(name: str, limit: int, seconds: int, waiting: int = 0) -> RateLimited:
    """Return the error of a request that exceeds a limit.

    Args:
        name: of the limit, as in `app.access.api_key.Limits`.
        seconds: until it may be sent again; -1: not known.
    """
    kind = BudgetSpent if name in ("tokens_per_day", "tokens_per_month") else RateLimited
    detail = f"{name}: {limit} {_UNITS.get(name, 'tokens')} {_CURES[name]}"
    return kind(detail, limit=name, waiting=waiting, retry_after_seconds=max(1, seconds) if seconds >= 0 else None)


def estimated_tokens(request: JobRequest) -> int:
    """Return how many tokens a job should take. No tokenizer is asked."""
    completion = 0
    if request.kind is Kind.GENERATE:
        completion = min(request.params.get("max_tokens", DEFAULT_MAX_TOKENS), COMPLETION_ESTIMATE)
    return estimated_prompt_tokens(request) + completion


def with_max_tokens(request: JobRequest, most: int | None) -> JobRequest:
    """Return the request with no more than `most` tokens to generate; None: no limit.

    One that asks for as many as fit gets this many. Raises InvalidRequest for one that asks for more.
    """
    if most is None or request.kind is not Kind.GENERATE:
        return request
    asked = request.params.get("max_tokens")
    if asked is not None and most < asked < MAX_TOKENS:
        reason = f"Must be at most {most}, the limit of this API key."
        raise InvalidRequest(f"params.max_tokens: {reason}", errors={"params.max_tokens": [reason]})
    allowed = min(most, DEFAULT_MAX_TOKENS if asked is None else asked)
    return replace(request, params={**request.params, "max_tokens": allowed})


def _allowance(limit: int, remaining: int, reset_seconds: str) -> Allowance | None:
    return None if limit < 0 else Allowance(limit, remaining, float(reset_seconds))
