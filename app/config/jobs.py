"""The section `jobs` of the configuration."""

from dataclasses import dataclass, field
from typing import Annotated

from app.config.schema import number, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWeights:
    prompt: Annotated[float, number("What a token of a prompt, or of a text to embed, counts in fair shares.", 0)] = 1.0
    cached: Annotated[float, number("What a token of a prompt counts that was computed before.", 0)] = 0.0
    completion: Annotated[float, number("What a generated token counts in fair shares.", 0)] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig:
    ttl: Annotated[int, whole_number("How long a finished job is kept.", 1)] = 86_400
    timeout: Annotated[int, whole_number("The longest running time of a job.", 1)] = 600
    max_attempts: Annotated[
        int,
        whole_number("How many workers may die while they run the same job; then it fails with `worker_lost`.", 1),
    ] = 3
    max_queued: Annotated[
        int, whole_number("How many jobs may wait; further requests get 503 with `Retry-After`.", 1)
    ] = 1000
    aging_seconds: Annotated[
        int,
        whole_number(
            "A job that has waited so long rises by one priority, and after half as long again by another: `low` does "
            "not wait for ever behind `high`.",
            1,
        ),
    ] = 300
    token_weights: TokenWeights = field(default_factory=TokenWeights)
