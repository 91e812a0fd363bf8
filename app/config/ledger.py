"""The keys of the configuration about the ledger: how long usage is kept, and how much of the audit stream."""

from dataclasses import dataclass
from typing import Annotated

from app.config.schema import whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageConfig:
    keep_days: Annotated[
        int,
        whole_number("How many days of usage are kept, beside the current one (UTC).", 1, 3660),
    ] = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    keep: Annotated[
        int,
        whole_number(
            "How many ended jobs the audit stream keeps: who, what, when, tokens and outcome, no prompt and no answer. "
            "0: it is off, and keeps what it has.",
            0,
            100_000_000,
        ),
    ] = 100_000
