"""One vocabulary of sampling parameters for every model family.

`params` of a request holds these names after `app.api.schemas.sampling` has resolved each library's own spelling
(`n_predict`, `repetition_penalty`, `temp`, ...). An engine lays a request's `params` over its family's defaults and
gets a `SamplingParams`.
"""

from dataclasses import dataclass, field, fields
from typing import Any

MAX_TOKENS = 1_000_000  # beyond every context; the model's own context is the limit that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of one sequence are chosen. The defaults here switch every processing step off (greedy aside)."""

    max_tokens: int = 128
    min_length: int = 0  # tokens generated before an end-of-generation token is allowed
    max_length: int | None = None  # prompt included; bounds max_tokens
    temperature: float = 1.0  # 0 = greedy
    do_sample: bool | None = None  # None: what the family does; greedy at temperature 0 whatever it says
    top_k: int = 0  # 0 = off
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # window of the three penalties, tokens; 0 = off, -1 = the context
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None  # rivals reported per token; None = no logprobs at all
    echo: bool = False
    suffix: str | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)  # token id -> added to its logit
    ignore_eos: bool = False
    grammar: str | None = None  # GBNF
    json_schema: dict[str, Any] | None = None
    mirostat: int = 0  # 0 off, 1 or 2
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    extra: dict[str, Any] = field(default_factory=dict)  # what a family adds beyond the common vocabulary

    @classmethod
    def build(cls, defaults: dict[str, Any], params: dict[str, Any]) -> "SamplingParams":
        """Request over family defaults; names outside the vocabulary go to `extra`."""
        merged = defaults | params
        known = {f.name for f in fields(cls)} - {"extra"}
        values = {name: value for name, value in merged.items() if name in known}
        if "stop" in values:
            values["stop"] = tuple(values["stop"])
        if "logit_bias" in values:
            values["logit_bias"] = {int(token): float(bias) for token, bias in values["logit_bias"].items()}
        return cls(**values, extra={name: value for name, value in merged.items() if name not in known})
