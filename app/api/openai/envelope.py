"""What every object of one answer shares: its id, its time, the model; and the usage of its jobs."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.config.params import names_a_secret
from app.config.settings import Config
from app.errors import ModelNotFound
from app.jobs.job import FinishReason, Job, Usage

FINISH_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
}
_DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Of the answer made by jobs of which `first` is the first."""

    kind: str  # `object`
    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def of(cls, kind: str, prefix: str, first: Job, config: Config) -> "Envelope":
        return cls(
            kind=kind,
            id=f"{prefix}-{first.id}",
            created=int(first.created_at),
            model=config.model_name,
            fingerprint=fingerprint(config),
        )

    def hold(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **more,
        }


def check_model(asked: str | None, served: str) -> None:
    """Raises ModelNotFound. A request that names no model means the one there is."""
    if asked is not None and asked != served:
        reason = f"the model {asked[:100]!r} does not exist here: {served!r} is served"
        raise ModelNotFound(reason, errors={"model": [reason]})


def fingerprint(config: Config) -> str:
    """Changes when the model does, or the way it is loaded."""
    setup = {name: value for name, value in config.setup_params.items() if not names_a_secret(name)}
    return _fingerprint(json.dumps([config.model_name, config.model_family, setup, config.model_params], default=str))


@cache
def _fingerprint(described: str) -> str:
    return f"fp_{hashlib.sha256(described.encode()).hexdigest()[:_DIGITS]}"


def usage(found: Iterable[Usage], prompts: int = 1) -> dict[str, Any]:
    """Of all jobs of an answer, in order: `prompts` prompts, each with as many jobs; a prompt counts once."""
    all_of_them = list(found)
    each = max(1, len(all_of_them) // max(1, prompts))
    first_of_each = all_of_them[::each]
    prompt = sum(one.prompt_tokens for one in first_of_each)
    completion = sum(one.completion_tokens for one in all_of_them)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in first_of_each)},
    }


def usage_of(jobs: Iterable[Job], prompts: int = 1) -> dict[str, Any]:
    return usage((job.usage or Usage() for job in jobs), prompts)
