"""What `lua/admit.lua` is given about a job, and what its verdict means."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.errors import Conflict, LLMAPIError, QueueFull
from app.jobs import keys
from app.jobs.job import ANONYMOUS, JobRequest
from app.jobs.limits import estimated_tokens, limit_error
from app.jobs.principal import Principal
from app.jobs.sharing import estimated_prompt_tokens
from app.jobs.trace_parent import trace_parent


def new_record(
    job_id: str, model: str, request: JobRequest, principal: Principal, *, limit_share: float, longest_ttl_seconds: int
) -> dict[str, str]:
    """Return the fields of a job's record that are known before its admission."""
    body = json.dumps(request.to_json(), ensure_ascii=False, separators=(",", ":"))
    record = {
        "id": job_id,
        "kind": request.kind.value,
        "model": model,
        "priority": request.priority.value,
        "request": body,
        "followed": "1" if request.stream else "0",
        "prompt_estimate": str(estimated_prompt_tokens(request)),
        **principal.to_fields(),
    }
    if principal.owner != ANONYMOUS:
        record |= {"estimated_tokens": str(estimated_tokens(request)), "limit_share": str(limit_share)}
    if request.response is not None and request.stored:
        record["keeps_request"] = "1"
    if request.not_before is not None:
        record["not_before"] = f"{request.not_before:.6f}"
    if parent := trace_parent.get():
        record["trace_parent"] = parent
    if request.ttl_seconds is not None:
        record["ttl"] = str(min(request.ttl_seconds, longest_ttl_seconds))
    if request.webhook is not None:
        due = {"delivery": keys.webhook(job_id), "due": keys.webhooks(model)}
        record["webhook"] = json.dumps(asdict(request.webhook) | due)
    return record


def rejection(verdict: str, reply: Sequence[Any]) -> LLMAPIError | None:
    """Return the error of a job that was not admitted; None for one that was. reply: what follows the verdict."""
    if verdict == "limited":
        return limit_error(reply[0], reply[1], reply[2], waiting=reply[3])
    if verdict == "full":
        return QueueFull(f"{reply[0]} jobs wait already (jobs.max_queued); try again", waiting=reply[0])
    if verdict == "conflict":
        return Conflict("this Idempotency-Key came with another request before: use a new key for a new request")
    return None
