"""The members that all objects of one response share: its id, its time, the model; and the usage of its jobs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from app.config.params import names_a_secret
from app.config.settings import Config
from app.jobs.job import FinishReason, Job, JobRequest, Usage

_NAMED_REASONS = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)  # by the same names as here
_DIGITS = 10


def finish_reason_of(reason: FinishReason | None) -> str:
    """Return OpenAI's name of a finish reason."""
    return str(reason) if reason in _NAMED_REASONS else "stop"


def envelope(kind: str, prefix: str, first: Job, request: JobRequest, config: Config) -> dict[str, Any]:
    """Return the members that all objects of a response share. kind: their `object`. first: the first job, made by a
    `request`.
    """
    return {
        "id": f"{prefix}-{first.id}",
        "object": kind,
        "created": int(first.created_at),
        "model": shown_model(request, config.model_name),
        "system_fingerprint": _fingerprint(config),
    }


def shown_model(request: JobRequest, served: str) -> str:
    """Return the name of the model in a response: that of its adapter, where it has one."""
    return request.adapters[0].name if len(request.adapters) == 1 else served


def _fingerprint(config: Config) -> str:
    """Return a digest that changes with the model, and with the way it is loaded."""
    setup = {name: value for name, value in config.setup_params.items() if not names_a_secret(name)}
    return _digest(json.dumps([config.model_name, config.model_family, setup, config.model_params], default=str))


@cache
def _digest(described: str) -> str:
    return f"fp_{hashlib.sha256(described.encode()).hexdigest()[:_DIGITS]}"


def usage(usages: Sequence[Usage], prompts: int = 1) -> dict[str, Any]:
    """Return the usage of a response.

    Args:
        usages: of its jobs, in order.
        prompts: the number of prompts, each of which has the same number of jobs. A prompt counts once.
    """
    each = max(1, len(usages) // max(1, prompts))
    first_of_each = usages[::each]
    prompt = sum(one.prompt_tokens for one in first_of_each)
    completion = sum(one.completion_tokens for one in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in first_of_each)},
    }


def usage_of(jobs: Iterable[Job], prompts: int = 1) -> dict[str, Any]:
    return usage([job.usage or Usage() for job in jobs], prompts)
